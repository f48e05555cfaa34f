//! Workers, sagas and records for the clauses.

use std::time::Duration;

use super::Violation;
use crate::record::{
    Change, ClaimRequest, Document, Heartbeat, Inserted, Journal, NewSaga, Record, SagaId, StepRow, Verdict,
    Worker, WorkerId,
};
use crate::status::{Status, StepStatus};
use crate::store::SagaStore;

pub(super) type Result<T = ()> = std::result::Result<T, Violation>;

/// A public function of each clause.
macro_rules! clauses {
    ($($(#[doc = $doc:literal])+ $name:ident($store:ident) $body:block)+) => {
    $(
        $(#[doc = $doc])+
        ///
        /// # Cancel safety
        /// For tests; the store is left as it is.
        ///
        /// # Errors
        /// [`Violation`](crate::testing::contract::Violation) with what the store did instead.
        pub async fn $name($store: &dyn SagaStore) -> Result $body
    )+

        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),+];

        pub(super) async fn named(name: &str, store: &dyn SagaStore) -> Option<Result> {
            $(if name == stringify!($name) {
                return Some($name(store).await);
            })+
            None
        }
    };
}
pub(super) use clauses;

/// Fails the clause unless the condition holds.
pub(super) fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(Violation(otherwise())) }
}

pub(super) const LONG: Duration = Duration::from_secs(3600);
const TYPE: &str = "contract";
const PRINT: &str = "fingerprint";

pub(super) async fn worker(store: &dyn SagaStore, lease: Duration) -> Result<WorkerId> {
    let id = WorkerId::generate();
    let _first: Heartbeat = store.heartbeat(&Worker { id, lease, pid: 1 }).await?;
    Ok(id)
}

pub(super) fn new_saga(owner: WorkerId, business_id: &str) -> NewSaga {
    NewSaga {
        id: SagaId::generate(),
        saga_type: TYPE.into(),
        business_id: business_id.into(),
        definition: PRINT.into(),
        input: Document::from_stored("{\"amount\":1}".into()),
        input_hash: "hash".into(),
        owner,
        trace: None,
    }
}

pub(super) async fn saga(store: &dyn SagaStore, owner: WorkerId, business_id: &str) -> Result<SagaId> {
    let new = new_saga(owner, business_id);
    let inserted = store.insert(std::slice::from_ref(&new)).await?;
    check(inserted == [Inserted::Created], || format!("a new saga was answered {inserted:?}"))?;
    Ok(new.id)
}

pub(super) fn claim_by(worker: WorkerId) -> ClaimRequest {
    ClaimRequest {
        worker,
        runnable: vec![(TYPE.into(), PRINT.into())],
        own: Vec::new(),
        limit: 64,
        stalled_max: 5,
        suspect_at: 2,
        suspects: 1,
    }
}

/// Claims as a worker that dies over what it got.
pub(super) async fn claim_and_die(store: &dyn SagaStore) -> Result<Vec<Journal>> {
    let id = worker(store, LONG).await?;
    let claimed = store.claim(&claim_by(id)).await?;
    let _held = store.heartbeat(&Worker { id, lease: Duration::ZERO, pid: 1 }).await?;
    Ok(claimed)
}

pub(super) async fn load(store: &dyn SagaStore, saga: SagaId) -> Result<Journal> {
    let loaded = store.load(&[saga]).await?.pop();
    loaded.ok_or_else(|| Violation(format!("saga {saga} was not found again")))
}

pub(super) fn step(order: u32, status: StepStatus) -> StepRow {
    StepRow {
        order,
        name: format!("Step{order}").into(),
        status,
        output: Some(Document::from_stored("{\"answer\":\"é\"}".into())),
        evidence: Some("receipt 7".into()),
        error: Some("slow".into()),
        retries: 2,
        retries_max: 3,
        undo_retries: 1,
        completion: order,
        retry_in: None,
        resolved_by: Some("alice".into()),
    }
}

pub(super) fn change(status: Status, steps: Vec<StepRow>) -> Change {
    Change {
        status,
        resume_status: None,
        reason: Some("because".into()),
        current_step: 1,
        unresolved: 0,
        steps,
    }
}

/// The first result of a saga that goes forward.
pub(super) fn record(saga: SagaId, epoch: i64, write_no: i64) -> Record {
    let change = change(Status::InProgress, vec![step(1, StepStatus::Succeeded)]);
    Record {
        saga,
        epoch,
        write_no,
        from: Status::InProgress,
        change,
        release: None,
        rewrite: false,
        turning: false,
    }
}

/// A mere step forward, as the engine writes most of the time.
pub(super) fn forward(saga: SagaId, epoch: i64, order: u32) -> Record {
    let mut change = change(Status::InProgress, vec![step(order, StepStatus::Succeeded)]);
    (change.reason, change.current_step) = (None, order);
    Record {
        saga,
        epoch,
        write_no: order.into(),
        from: Status::InProgress,
        change,
        release: None,
        rewrite: false,
        turning: false,
    }
}

pub(super) async fn apply(store: &dyn SagaStore, record: Record) -> Result<Verdict> {
    let mut verdicts = store.apply(&[record]).await?;
    check(verdicts.len() == 1, || format!("one record was answered by {} verdicts", verdicts.len()))?;
    verdicts.pop().ok_or_else(|| Violation("no verdict".into()))
}

pub(super) fn is_applied(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Applied(_))
}
