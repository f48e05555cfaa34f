//! The hook that finds out the outcome of a lost attempt.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::core::claim::Indeterminate;
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::recording::Recording;

/// Finds out what happened to an attempt that may have had its effect: usually by asking the downstream system about
/// [`RecoverContext::downstream_key`].
///
/// The layer asks it too for the answer of an attempt that has told its client `Verdict::Pending`.
///
/// One caller asks at a time about a key, in all processes that share the store; the others are answered
/// [`Answer::InFlight`](crate::store::Answer::InFlight). After [`Recovered::Unknown`] the hook is asked again a second
/// later at the earliest.
#[async_trait]
pub trait Recover: Send + Sync + 'static {
    /// Says what happened. Say [`Recovered::Unknown`] unless there is proof.
    ///
    /// # Cancel safety
    /// It should only read. It is dropped when it takes longer than the policy's
    /// [`recover_timeout`](crate::Policy::recover_timeout), or when its caller is dropped; both count as
    /// [`Recovered::Unknown`]. A process that was stopped for that long may ask at the same time as another one.
    async fn recover(&self, cx: &RecoverContext) -> Recovered;
}

/// The fate of a lost attempt, as the hook found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It had its effect; this is the answer the client should have got.
    Done(Recording),
    /// It had its effect, and this is the answer as of now, which is not recorded. The next retry asks the hook again.
    Pending(Recording),
    /// It provably had no effect and never will: the other side has refused or fenced its key. Run it again.
    Absent,
    /// It cannot be said. The record stays indeterminate.
    Unknown,
}

/// The lost attempt.
#[derive(Debug, Clone)]
pub struct RecoverContext {
    record: RecordId,
    lost: Indeterminate,
    payload: Bytes,
}

impl RecoverContext {
    pub(crate) const fn new(record: RecordId, lost: Indeterminate, payload: Bytes) -> Self {
        Self { record, lost, payload }
    }

    pub(crate) const fn lost(&self) -> Indeterminate {
        self.lost
    }

    /// The record, as 64 hexadecimal digits.
    #[must_use]
    pub fn record_id(&self) -> String {
        self.record.to_hex()
    }

    /// The key the lost attempt sent downstream for `step`.
    #[must_use]
    pub fn downstream_key(&self, step: &str) -> String {
        self.record.downstream_key(step)
    }

    /// Which attempt was lost.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.lost.attempt
    }

    /// The fence of the lost attempt.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.lost.fence
    }

    /// The time since its lease ended, by the store's clock.
    #[must_use]
    pub const fn since(&self) -> Duration {
        self.lost.since
    }

    /// The request body or message of the retry; the fingerprint has proven it equal to the lost attempt's.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }
}
