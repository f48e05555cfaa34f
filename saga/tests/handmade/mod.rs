//! Sagas and results made by hand, for tests of a store without an engine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use probity_saga::store::{Change, NewSaga, Record, WorkerId};
use probity_saga::{
    SagaId, Status, StepStatus,
    store::{Document, StepRow},
};

/// A saga that no worker of this test can run.
pub(crate) fn new_saga(owner: WorkerId, business_id: &str) -> NewSaga {
    NewSaga {
        id: SagaId::generate(),
        saga_type: "other".into(),
        business_id: business_id.into(),
        definition: "v1".into(),
        input: Document::encode(&1).unwrap(),
        input_hash: "hash".into(),
        owner,
        trace: None,
    }
}

/// Its first step has succeeded.
pub(crate) fn first_step(saga: SagaId, name: &'static str) -> Record {
    let step = StepRow {
        order: 1,
        name: name.into(),
        status: StepStatus::Succeeded,
        output: None,
        evidence: None,
        error: None,
        retries: 0,
        retries_max: 0,
        undo_retries: 0,
        completion: 1,
        retry_in: None,
        resolved_by: None,
    };
    let change = Change {
        status: Status::InProgress,
        resume_status: None,
        reason: None,
        current_step: 1,
        unresolved: 0,
        steps: vec![step],
    };
    let (release, rewrite, turning) = (None, false, false);
    Record { saga, epoch: 1, write_no: 1, from: Status::InProgress, change, release, rewrite, turning }
}
