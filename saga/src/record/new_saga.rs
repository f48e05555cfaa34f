//! A saga that is to be inserted, and its row afterwards.

use std::time::Duration;

use super::{Document, Instance, SagaId, WorkerId};
use crate::status::Status;

/// A saga to be inserted.
#[derive(Debug, Clone)]
pub struct NewSaga {
    /// Made by the caller, once, outside any retry.
    pub id: SagaId,
    /// `business_type`.
    pub saga_type: String,
    /// Unique together with the type.
    pub business_id: String,
    /// The fingerprint of the definition it was started with.
    pub definition: String,
    /// The input.
    pub input: Document,
    /// Hash of the input: the same business id with another input is refused.
    pub input_hash: String,
    /// The worker that drives it from the first moment, without a claim.
    pub owner: WorkerId,
    /// The trace in which it was started, as [`Instance::trace`].
    pub trace: Option<String>,
}

/// The answer of a store to one insert.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an existing saga is not driven by this start"]
pub enum Inserted {
    /// It is new.
    Created,
    /// A saga with this type and business id is there already.
    Exists {
        /// Its id.
        id: SagaId,
        /// The hash of the input it was started with.
        input_hash: String,
    },
}

impl NewSaga {
    /// Makes the row that every store begins with.
    pub(crate) fn into_instance(self) -> Instance {
        Instance {
            id: self.id,
            saga_type: self.saga_type,
            business_id: self.business_id,
            definition: self.definition,
            status: Status::InProgress,
            resume_status: None,
            reason: None,
            current_step: 0,
            input: self.input,
            input_hash: self.input_hash,
            owner: Some(self.owner),
            epoch: 1,
            write_no: 0,
            unresolved: 0,
            row_version: 1,
            stalled_claims: 0,
            cancel_requested: None,
            pause_requested: false,
            age: Duration::ZERO,
            trace: self.trace,
            unreadable: None,
        }
    }
}
