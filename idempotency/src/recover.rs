//! Asking the world what happened to a lost attempt.
//!
//! Invariant: only [`Recovered::Absent`] permits another execution, and only if the record is still the one that was
//! asked about: the resolution carries the lost attempt's fence.
//!
//! One caller asks at a time, of all processes: it holds an inquiry, a record of its own in the same store, whose lease
//! ends by itself if the asking process dies. Whoever meets it is told that the key is in flight.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use tokio::time::timeout;
use tracing::warn;

use crate::lease::guard::{self, LeaseGuard};
use crate::{
    Answer, Claim, Effects, Fence, IdempotencyManager, Indeterminate, OwnerToken, Policy, RecordId,
    Recording, Resolution, StoreError, Terms,
};

/// How often one caller follows a record that keeps becoming indeterminate under it.
const ROUNDS: u32 = 2;
/// The time that a hook may take unless the policy says otherwise.
pub(crate) const RECOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// The lease of an inquiry, which is renewed while the hook runs. If the asking process dies, nobody else can ask before
/// this lease ends.
const HELD: Duration = Duration::from_secs(10);
/// The time that an inquiry may be held beyond the time of the hook: for the calls to the store before and after it.
const AROUND: Duration = Duration::from_secs(10);
/// The longest time that an inquiry is held, however long the hook may take. After it another caller may ask at the same
/// time.
const HELD_MAX: Duration = Duration::from_secs(3600);
/// The time for which callers are told "nobody can say" without asking the hook again.
const PAUSE: Duration = Duration::from_secs(1);

/// Finds out what happened to an attempt that may have had its effect: usually by asking the downstream system about
/// [`RecoverContext::downstream_key`].
///
/// One caller asks at a time about a key, in all processes that share the store; the others are answered
/// [`Answer::InFlight`]. After [`Recovered::Unknown`] it is asked again a second later at the earliest.
#[async_trait]
pub trait Recover: Send + Sync + 'static {
    /// Says what happened. Say [`Recovered::Unknown`] unless there is proof.
    ///
    /// # Cancel safety
    /// It should only read: it is dropped when it takes longer than [`Policy::recover_timeout`] or its caller is, which
    /// counts as [`Recovered::Unknown`]. A process that was stopped for that long may ask beside another one.
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
        let asking = Asking { manager, claim, cx, limit: policy.recover_timeout.unwrap_or(RECOVER_TIMEOUT) };
        match asking.inquire(hook.as_ref()).await {
            Ok(Inquired::Settled) => answer = guard::claim_unrenewed(manager, claim).await,
            Ok(Inquired::Answered(end)) => {
                answer = Ok(end);
                break;
            }
            Err(error) => answer = Err(error),
        }
    }
    match &answer {
        Ok(answer) => crate::observe::answered(claim.record, answer, asked_at.elapsed()),
        Err(_) => crate::observe::store_failed(),
    }
    answer
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
}

impl Asking<'_> {
    async fn inquire(&self, hook: &dyn Recover) -> Result<Inquired, StoreError> {
        let undecided = || Ok(Inquired::Answered(Answer::Indeterminate(self.cx.lost)));
        let mut inquiry = match guard::claim_unrenewed(self.manager, &self.inquiry()?).await? {
            Answer::Acquired(inquiry) => inquiry,
            Answer::InFlight { retry_after } => {
                return Ok(Inquired::Answered(Answer::InFlight { retry_after }));
            }
            // Somebody has just been told that nobody can say.
            _ => return undecided(),
        };
        // Somebody may have asked, and settled it, since this caller was told of the loss.
        match guard::claim_unrenewed(self.manager, self.claim).await? {
            Answer::Indeterminate(still) if still.fence == self.cx.lost.fence => {}
            other => {
                close(&mut inquiry, None).await;
                return Ok(Inquired::Answered(other));
            }
        }
        let resolution = match guard::renewing(inquiry.lease(), self.ask(hook)).await {
            Recovered::Done(recording) => Resolution::Done(recording),
            Recovered::Absent => Resolution::Absent,
            Recovered::Unknown => {
                close(&mut inquiry, Some(&Recording::default())).await;
                return undecided();
            }
        };
        let Claim { record, terms, .. } = self.claim;
        let resolved = self.manager.resolve(*record, self.cx.lost.fence, &resolution, terms.retention).await;
        close(&mut inquiry, None).await;
        // Whatever it is, the truth is in the record: ask again.
        resolved.map(|_| Inquired::Settled)
    }

    /// The claim on asking about this lost attempt, and no other.
    fn inquiry(&self) -> Result<Claim, StoreError> {
        let lease_cap = self.limit.saturating_add(AROUND).min(HELD_MAX);
        Ok(Claim {
            record: self.claim.record.inquiry(self.cx.lost.fence),
            token: OwnerToken::generate()?,
            fingerprint: self.claim.fingerprint,
            effects: Effects::Local,
            terms: Terms { lease: HELD, lease_cap, retention: PAUSE },
        })
    }

    async fn ask(&self, hook: &dyn Recover) -> Recovered {
        let answer = timeout(self.limit, hook.recover(&self.cx)).await;
        answer.unwrap_or_else(|_| {
            warn!(record = ?self.claim.record, limit = ?self.limit, "the Recover hook took too long; the outcome stays unknown");
            Recovered::Unknown
        })
    }
}

/// Ends an inquiry: with what others are told for a while, or at once. If the store does not hear of it, it lapses.
async fn close(inquiry: &mut LeaseGuard, told: Option<&Recording>) {
    let closed = match told {
        Some(nobody_can_say) => inquiry.complete(nobody_can_say).await,
        None => inquiry.abandon().await,
    };
    if let Err(error) = closed {
        warn!(kind = ?error.kind(), "an inquiry was not ended; it lapses by itself");
    }
}
