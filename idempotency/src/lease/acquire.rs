//! Claims a record, and turns the grant into a guard.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::guard::LeaseGuard;
use super::handle::{Held, Lease};
use super::renew::renew_while_held;
use crate::core::claim::{Answer, Claim, Written};
use crate::deadline::deadline;
use crate::error::{Effect, StoreError};
use crate::metrics;
use crate::store::manager::IdempotencyManager;
use crate::token::Holder;

/// No claim is on its way for longer. A lease may be endless; asking a store for what never arrived must not be.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);

/// Sends `claim`, and turns a grant into a guard that renews itself.
///
/// A claim whose reply was lost is sent once more with the same token before this gives up; if it still may have been
/// granted, it is given back in the background, since nothing ran, for as long as its lease would last, and an hour at
/// most. After an error its token is therefore spent: claim again with a new one, or what is given back may be what you
/// were granted.
///
/// If that second call is answered `InFlight`, nothing waits for the first. Held up on its way for so long that the running
/// attempt has ended without an answer, it may still be granted, to no attempt: retries are then told `InFlight` until its
/// lease is over, and an opaque record is indeterminate although nothing ran. No work runs twice because of it.
///
/// # Cancel safety
/// A claim in flight may have been granted; it then lapses with its lease. Run this in a task of its own if the caller
/// can be cancelled.
///
/// # Errors
/// If the store cannot answer. Do not run the work (I-9).
pub async fn claim(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
) -> Result<Answer<LeaseGuard>, StoreError> {
    let answer = claim_unrenewed(manager, claim).await?;
    if let Answer::Acquired(guard) = &answer {
        tokio::spawn(renew_while_held(Arc::clone(&guard.lease().0)));
    }
    Ok(answer)
}

/// Claims like [`claim`], for work that is polled by [`renewing`](super::renew::renewing).
pub(crate) async fn claim_unrenewed(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
) -> Result<Answer<LeaseGuard>, StoreError> {
    let mut asked_at = Instant::now();
    let mut answer = metrics::time_call("claim", manager.claim(claim)).await;
    let unconfirmed = answer.as_ref().is_err_and(|error| error.effect() == Effect::Unknown);
    if unconfirmed {
        asked_at = Instant::now();
        answer = metrics::time_call("claim", manager.claim(claim)).await;
    }
    match answer {
        Ok(answer) => Ok(into_guard(manager, claim, answer, asked_at)),
        Err(error) => {
            if unconfirmed {
                tokio::spawn(give_back(Arc::clone(manager), claim.holder(), claim.terms.lease));
            }
            Err(error.after_doubt(unconfirmed))
        }
    }
}

/// Gives back a claim that is not known to be granted. A record that is missing proves nothing, as the claim may still
/// be on its way behind another's lock: it is asked for again for as long as the lease would last, or a claim can be on
/// its way.
async fn give_back(manager: Arc<dyn IdempotencyManager>, holder: Holder, lease: Duration) {
    let until = deadline(Instant::now(), lease.min(ON_ITS_WAY));
    let mut pause = Duration::from_millis(20);
    loop {
        let verdict = manager.release(&holder).await;
        let last = Instant::now() + pause >= until;
        match verdict {
            Ok(Written::Missing) if !last => {}
            Ok(_) => return,
            Err(error) if last => {
                warn!(record = ?holder.record, kind = ?error.kind(), "a claim that may have been granted could not be released; it expires by itself");
                return;
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn into_guard(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
    answer: Answer,
    asked_at: Instant,
) -> Answer<LeaseGuard> {
    match answer {
        Answer::Acquired(grant) => {
            let held = Held::new(Arc::clone(manager), claim, grant, asked_at);
            Answer::Acquired(LeaseGuard::new(Lease(Arc::new(held))))
        }
        Answer::Replay(recording) => Answer::Replay(recording),
        Answer::InFlight { retry_after } => Answer::InFlight { retry_after },
        Answer::Mismatch => Answer::Mismatch,
        Answer::NotReplayable(tombstone) => Answer::NotReplayable(tombstone),
        Answer::Indeterminate(indeterminate) => Answer::Indeterminate(indeterminate),
    }
}
