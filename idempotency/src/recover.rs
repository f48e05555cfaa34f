//! Asking the world what happened to a lost attempt.
//!
//! Invariant: only [`Recovered::Absent`] permits another execution, and only if the record is still the one that was
//! asked about: the resolution carries the lost attempt's fence.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::lease::guard::{self, LeaseGuard};
use crate::{
    Answer, Claim, Fence, IdempotencyManager, Indeterminate, Policy, RecordId, Recording, Resolution,
    StoreError,
};

/// How often one caller follows a record that keeps becoming indeterminate under it.
const ROUNDS: u32 = 2;

/// Finds out what happened to an attempt that may have had its effect: usually by asking the downstream system about
/// [`RecoverContext::downstream_key`].
#[async_trait]
pub trait Recover: Send + Sync + 'static {
    /// Says what happened. Say [`Recovered::Unknown`] unless there is proof.
    ///
    /// # Cancel safety
    /// It should only read: it can be dropped, and asked again by another caller at the same time.
    async fn recover(&self, cx: &RecoverContext) -> Recovered;
}

/// What happened to a lost attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// It had its effect; this is the answer the client should have got.
    Done(Recording),
    /// It provably had no effect and never will: the other side has refused or fenced its key. Run it again.
    Absent,
    /// Nobody can say. It stays indeterminate.
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

    /// How long ago its lease ended, by the store's clock.
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

/// Claims, and lets the policy's hook settle an indeterminate record first. The work must be polled by
/// [`renewing`](guard::renewing).
pub(crate) async fn claim(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
    policy: &Policy,
    payload: &Bytes,
) -> Result<Answer<LeaseGuard>, StoreError> {
    let asked_at = tokio::time::Instant::now();
    let mut answer = guard::claim_unrenewed(manager, claim).await;
    for _ in 0..ROUNDS {
        let (Ok(Answer::Indeterminate(lost)), Some(hook)) = (&answer, &policy.recover) else { break };
        let cx = RecoverContext { record: claim.record, lost: *lost, payload: payload.clone() };
        let resolution = match hook.recover(&cx).await {
            Recovered::Done(recording) => Resolution::Done(recording),
            Recovered::Absent => Resolution::Absent,
            Recovered::Unknown => break,
        };
        answer = match manager.resolve(claim.record, lost.fence, &resolution, claim.terms.retention).await {
            // Whatever it is, the truth is in the record: ask again.
            Ok(_) => guard::claim_unrenewed(manager, claim).await,
            Err(error) => Err(error),
        };
    }
    match &answer {
        Ok(answer) => crate::observe::answered(answer, asked_at.elapsed()),
        Err(_) => crate::observe::store_failed(),
    }
    answer
}
