//! Claims a record, and asks the policy's hook for the outcome of a lost attempt first.
//!
//! Invariant: only [`Recovered::Absent`] permits another execution, and only if the record is still the one that was
//! asked about: the resolution carries the lost attempt's fence.
//!
//! One caller asks at a time, of all processes: it holds an inquiry, a record of its own in the same store, whose lease
//! ends by itself if the asking process dies. A caller that finds the inquiry gets the answer "in flight".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::acquire::claim_unrenewed;
use super::guard::LeaseGuard;
use super::renew::renewing;
use crate::core::claim::{Answer, Claim, Effects, Resolution, Terms};
use crate::core::recording::Recording;
use crate::error::StoreError;
use crate::metrics;
use crate::policy::Policy;
use crate::recover::{Recover, RecoverContext, Recovered};
use crate::store::manager::IdempotencyManager;
use crate::token::OwnerToken;

/// The number of times that one caller follows a record that keeps becoming indeterminate under it.
const ROUNDS: u32 = 2;
/// The time that a hook may take unless the policy says otherwise.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// The lease of an inquiry, which is renewed while the hook runs. If the asking process dies, no other caller can ask before
/// this lease ends.
const HELD: Duration = Duration::from_secs(10);
/// The time that an inquiry may be held beyond the time of the hook: for the calls to the store before and after it.
const AROUND: Duration = Duration::from_secs(10);
/// The longest time that an inquiry is held, also if the hook may take longer. After it another caller may ask at the
/// same time.
const HELD_MAX: Duration = Duration::from_secs(3600);
/// The time for which callers get the answer "unknown" without asking the hook again.
const PAUSE: Duration = Duration::from_secs(1);

/// The result of a claim.
pub(crate) enum Claimed {
    /// The answer of the store.
    Answer(Answer<LeaseGuard>),
    /// The attempt ran; the hook says that this is its answer as of now.
    Pending(Recording),
}

/// Claims, and lets the policy's hook settle an indeterminate record first. The work must be polled by
/// [`renewing`].
pub(crate) async fn claim(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
    policy: &Policy,
    payload: &Bytes,
) -> Result<Claimed, StoreError> {
    let asked_at = Instant::now();
    let mut answer = claim_unrenewed(manager, claim).await;
    for _ in 0..ROUNDS {
        let (Ok(Answer::Indeterminate(lost)), Some(hook)) = (&answer, &policy.recover) else { break };
        let cx = RecoverContext::new(claim.record, *lost, payload.clone());
        let asking = Asking { manager, claim, cx, limit: policy.recover_timeout.unwrap_or(RECOVER_TIMEOUT) };
        match asking.inquire(hook.as_ref()).await {
            Ok(Inquired::Settled) => answer = claim_unrenewed(manager, claim).await,
            Ok(Inquired::Answered(end)) => {
                answer = Ok(end);
                break;
            }
            Ok(Inquired::Pending(recording)) => {
                metrics::count_pending(asked_at.elapsed());
                return Ok(Claimed::Pending(recording));
            }
            Err(error) => answer = Err(error),
        }
    }
    match &answer {
        Ok(answer) => metrics::count_answer(claim.record, answer, asked_at.elapsed()),
        Err(_) => metrics::count_store_error(),
    }
    answer.map(Claimed::Answer)
}

/// A caller that met a lost attempt.
struct Asking<'a> {
    manager: &'a Arc<dyn IdempotencyManager>,
    claim: &'a Claim,
    cx: RecoverContext,
    limit: Duration,
}

/// The result of an inquiry.
enum Inquired {
    /// The truth is in the record: claim again.
    Settled,
    /// This is the answer for now.
    Answered(Answer<LeaseGuard>),
    /// The hook says that the answer is not final.
    Pending(Recording),
}

impl Asking<'_> {
    async fn inquire(&self, hook: &dyn Recover) -> Result<Inquired, StoreError> {
        let undecided = || Ok(Inquired::Answered(Answer::Indeterminate(self.cx.lost())));
        let mut inquiry = match claim_unrenewed(self.manager, &self.inquiry()?).await? {
            Answer::Acquired(inquiry) => inquiry,
            Answer::InFlight { retry_after } => {
                return Ok(Inquired::Answered(Answer::InFlight { retry_after }));
            }
            // Another caller got the answer "unknown" a moment ago.
            _ => return undecided(),
        };
        // Another caller may have asked, and settled it, since this caller was told of the loss.
        match claim_unrenewed(self.manager, self.claim).await? {
            Answer::Indeterminate(still) if still.fence == self.cx.lost().fence => {}
            other => {
                close(&mut inquiry, None).await;
                return Ok(Inquired::Answered(other));
            }
        }
        let resolution = match renewing(inquiry.lease(), self.ask(hook)).await {
            Recovered::Done(recording) => Resolution::Done(recording),
            Recovered::Absent => Resolution::Absent,
            Recovered::Pending(recording) => {
                close(&mut inquiry, None).await;
                return Ok(Inquired::Pending(recording));
            }
            Recovered::Unknown => {
                close(&mut inquiry, Some(&Recording::default())).await;
                return undecided();
            }
        };
        let Claim { record, terms, .. } = self.claim;
        let resolved =
            self.manager.resolve(*record, self.cx.lost().fence, &resolution, terms.retention).await;
        close(&mut inquiry, None).await;
        // The record has the result: ask again.
        resolved.map(|_| Inquired::Settled)
    }

    /// The claim on asking about this lost attempt, and no other.
    fn inquiry(&self) -> Result<Claim, StoreError> {
        let lease_cap = self.limit.saturating_add(AROUND).min(HELD_MAX);
        Ok(Claim {
            record: self.claim.record.inquiry(self.cx.lost().fence),
            token: OwnerToken::generate()?,
            fingerprint: self.claim.fingerprint,
            effects: Effects::Local,
            terms: Terms { lease: HELD, lease_cap, retention: PAUSE },
        })
    }

    async fn ask(&self, hook: &dyn Recover) -> Recovered {
        let answer = timeout(self.limit, hook.recover(&self.cx)).await;
        answer.unwrap_or_else(|_| {
            warn!(record = ?self.claim.record, limit = ?self.limit, "the Recover hook took too long and was dropped; the outcome stays unknown");
            Recovered::Unknown
        })
    }
}

/// Ends an inquiry: with an answer for other callers, which is kept for a while, or at once. If the call does not reach
/// the store, the inquiry expires.
async fn close(inquiry: &mut LeaseGuard, told: Option<&Recording>) {
    let closed = match told {
        Some(nobody_can_say) => inquiry.complete(nobody_can_say).await,
        None => inquiry.release().await,
    };
    if let Err(error) = closed {
        warn!(kind = ?error.kind(), "the inquiry could not be ended; it expires by itself");
    }
}
