//! The baseline: the three records of such a saga, written by the same statements, one commit each.

use std::time::Duration;

use probity_saga::store::{
    Change, Heartbeat, Inserted, NewSaga, Record, SagaStore, Verdict, Worker, WorkerId,
};
use probity_saga::{
    SagaId, Status, StepStatus,
    store::{Document, StepRow},
};

use tokio::sync::Semaphore;

use super::work::name;

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn write(store: &impl SagaStore, turns: &Semaphore, owner: WorkerId) {
    let new = new_saga(owner);
    let id = new.id;
    let turn = turns.acquire().await.expect("an open semaphore");
    let inserted = store.insert(&[new]).await.expect("an insert");
    drop(turn);
    assert_eq!(inserted, [Inserted::Created]);
    for order in [1, 2] {
        let _turn = turns.acquire().await.expect("an open semaphore");
        let verdicts = store.apply(&[done(id, order)]).await.expect("a result");
        assert!(matches!(verdicts[..], [Verdict::Applied(_)]), "{verdicts:?}");
    }
}

/// An owner with a lease of a day, so that no worker takes its sagas over.
#[expect(clippy::expect_used, reason = "as above")]
pub(super) async fn living_owner(store: &impl SagaStore) -> WorkerId {
    let worker = Worker { id: WorkerId::generate(), lease: Duration::from_secs(86_400), pid: 1 };
    let _first: Heartbeat = store.heartbeat(&worker).await.expect("a beat");
    worker.id
}

/// A new saga of the kind that the engine writes.
pub(super) fn new_saga(owner: WorkerId) -> NewSaga {
    let definition = super::work::saga().fingerprint().to_owned();
    NewSaga {
        id: SagaId::generate(),
        saga_type: "bench".into(),
        business_id: name(),
        definition,
        input: Document::from_stored("0".into()),
        input_hash: "0123456789abcdef0123456789abcdef".into(),
        owner,
        trace: None,
    }
}

/// The result of a step; the second is the last.
pub(super) fn done(saga: SagaId, order: u32) -> Record {
    let step = if order == 1 { "First" } else { "Second" };
    let row = StepRow {
        order,
        name: step.into(),
        status: StepStatus::Succeeded,
        output: Some(Document::from_stored("0".into())),
        evidence: None,
        error: None,
        retries: 0,
        retries_max: 3,
        undo_retries: 0,
        completion: order,
        retry_in: None,
        resolved_by: None,
    };
    let change = Change {
        status: if order == 2 { Status::Completed } else { Status::InProgress },
        resume_status: None,
        reason: None,
        current_step: order,
        unresolved: 0,
        steps: vec![row],
    };
    Record {
        saga,
        epoch: 1,
        write_no: order.into(),
        from: Status::InProgress,
        change,
        release: None,
        rewrite: false,
        turning: false,
    }
}
