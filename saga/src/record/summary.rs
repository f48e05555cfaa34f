//! Summaries of many sagas at once: less than their journals.

use std::time::Duration;

use super::{Instance, SagaId};
use crate::status::Status;

/// The open sagas of one type and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCounts {
    /// `business_type`.
    pub saga_type: String,
    /// Their status, which is no end.
    pub status: Status,
    /// The number of sagas.
    pub sagas: u64,
    /// The age of the oldest, by the store's clock.
    pub oldest: Duration,
    /// The number of those that are due, have no living worker, and have a definition that is not among
    /// those asked about.
    pub unrunnable: u64,
}

/// A saga that is at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which saga.
    pub saga: SagaId,
    /// The status in which it rests.
    pub status: Status,
    /// The step it is at.
    pub step: u32,
    /// The reason.
    pub reason: Option<String>,
}

impl Settled {
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        let Instance { id, status, current_step, reason, .. } = instance;
        (!status.is_active()).then(|| Self {
            saga: *id,
            status: *status,
            step: *current_step,
            reason: reason.clone(),
        })
    }
}
