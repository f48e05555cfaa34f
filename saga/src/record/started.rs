//! The row of a saga that was just inserted: what every store begins with, and every drive that needs no look at it.

use std::time::Duration;

use super::{Instance, NewSaga};
use crate::machine::Status;

impl NewSaga {
    /// The row as the insert of this moment leaves it.
    pub(crate) fn started(self) -> Instance {
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
            unreadable: None,
        }
    }
}
