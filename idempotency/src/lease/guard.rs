//! The owner of a lease: renews it while the work runs, and settles it exactly once.
//!
//! Invariant: a guard that is dropped unsettled gives the key back only if nothing can have happened. Otherwise it
//! ends the lease, and the record is indeterminate: never a blind delete (I-5).

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::{Held, Lease};
use crate::deadline::deadline;
use crate::{
    Answer, Claim, Effect, Holder, IdempotencyManager, Recording, Renewed, State, StoreError, Tombstone,
    Written, observe,
};

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
/// attempt has ended without an answer, it may still be granted, to nobody: retries are then told `InFlight` until its
/// lease is over, and an opaque record is indeterminate although nothing ran. Nothing runs twice by it.
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
        tokio::spawn(renew_while_held(Arc::clone(&guard.lease.0)));
    }
    Ok(answer)
}

/// As [`claim`], for work that is polled by [`renewing`].
pub(crate) async fn claim_unrenewed(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
) -> Result<Answer<LeaseGuard>, StoreError> {
    let mut asked_at = Instant::now();
    let mut answer = observe::stored("begin", manager.begin(claim)).await;
    let unconfirmed = answer.as_ref().is_err_and(|error| error.effect() == Effect::Unknown);
    if unconfirmed {
        asked_at = Instant::now();
        answer = observe::stored("begin", manager.begin(claim)).await;
    }
    match answer {
        Ok(answer) => Ok(guarded(manager, claim, answer, asked_at)),
        Err(error) => {
            if unconfirmed {
                tokio::spawn(give_back(Arc::clone(manager), claim.holder(), claim.terms.lease));
            }
            Err(error.after_doubt(unconfirmed))
        }
    }
}

/// Gives back a claim that nobody knows to be granted. A record that is missing proves nothing, as the claim may still
/// be on its way behind somebody's lock: it is asked for again for as long as the lease would last, or a claim can be on
/// its way.
async fn give_back(manager: Arc<dyn IdempotencyManager>, holder: Holder, lease: Duration) {
    let give_up_at = deadline(Instant::now(), lease.min(ON_ITS_WAY));
    let mut pause = Duration::from_millis(20);
    loop {
        let verdict = manager.abandon(&holder).await;
        let last = Instant::now() + pause >= give_up_at;
        match verdict {
            Ok(Written::Missing) if !last => {}
            Ok(_) => return,
            Err(error) if last => {
                warn!(record = ?holder.record, kind = ?error.kind(), "a claim that may have been granted was not given back");
                return;
            }
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn guarded(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
    answer: Answer,
    asked_at: Instant,
) -> Answer<LeaseGuard> {
    match answer {
        Answer::Acquired(grant) => {
            let held = Held::new(Arc::clone(manager), claim, grant, asked_at);
            Answer::Acquired(LeaseGuard { lease: Lease(Arc::new(held)), settled: false })
        }
        Answer::Replay(recording) => Answer::Replay(recording),
        Answer::InFlight { retry_after } => Answer::InFlight { retry_after },
        Answer::Mismatch => Answer::Mismatch,
        Answer::NotReplayable(tombstone) => Answer::NotReplayable(tombstone),
        Answer::Indeterminate(indeterminate) => Answer::Indeterminate(indeterminate),
    }
}

/// How a finished run is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Keep the answer for retries.
    Record(Recording),
    /// Keep that it ran.
    Bury(Tombstone),
    /// Nothing happened: the key is free again.
    Release,
}

/// The one owner of a claim. Settle it with [`complete`](Self::complete), [`tombstone`](Self::tombstone),
/// [`abandon`](Self::abandon) or [`surrender`](Self::surrender); dropping it settles by the declared effects.
#[must_use = "dropping a guard gives the key back or makes the record indeterminate"]
#[derive(Debug)]
pub struct LeaseGuard {
    lease: Lease,
    settled: bool,
}

impl LeaseGuard {
    /// The handle to pass to the work.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Records the answer. The guard counts as settled only when the store has said so.
    ///
    /// # Cancel safety
    /// The answer may have been recorded. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; call again, with the same recording.
    pub async fn complete(&mut self, recording: &Recording) -> Result<Written, StoreError> {
        let held = &self.lease.0;
        let completing = held.manager.complete(&held.holder, recording, held.terms.retention);
        let written = observe::stored("complete", completing).await?;
        observe::completed(recording.size(), held.is_lost(), &written);
        self.seal();
        Ok(written)
    }

    /// Records that the work ran and cannot be replayed.
    ///
    /// # Cancel safety
    /// The tombstone may have been recorded. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; call again.
    pub async fn tombstone(&mut self, tombstone: &Tombstone) -> Result<Written, StoreError> {
        let held = &self.lease.0;
        let burying = held.manager.tombstone(&held.holder, tombstone, held.terms.retention);
        let written = observe::stored("tombstone", burying).await?;
        self.seal();
        Ok(written)
    }

    /// Gives the key back: nothing happened. Answers `Refused` after a mark, or if `complete_in` was committed after
    /// all; nothing is changed then.
    ///
    /// # Cancel safety
    /// The key may have been given back. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; call again.
    pub async fn abandon(&mut self) -> Result<Written, StoreError> {
        let held = &self.lease.0;
        let written = observe::stored("abandon", held.manager.abandon(&held.holder)).await?;
        if written != Written::Refused(State::InFlight) {
            self.seal();
        }
        Ok(written)
    }

    /// Ends the lease now, without an answer: if anything may have happened the record is indeterminate.
    ///
    /// # Cancel safety
    /// The lease may have ended. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; the lease then ends by itself.
    pub async fn surrender(&mut self) -> Result<(), StoreError> {
        self.lease.0.stop_renewing();
        self.settled = true;
        surrender(&self.lease.0).await
    }

    /// Settles once.
    ///
    /// # Cancel safety
    /// It may be settled. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; call again, with the same settlement.
    pub async fn settle(&mut self, settlement: &Settlement) -> Result<Written, StoreError> {
        match settlement {
            Settlement::Record(recording) => self.complete(recording).await,
            Settlement::Bury(tombstone) => self.tombstone(tombstone).await,
            Settlement::Release => self.abandon().await,
        }
    }

    /// Settles, and keeps trying for the length of a lease: after the work ran, only the record can prevent a second
    /// run.
    ///
    /// # Cancel safety
    /// It may be settled. Calling again is harmless.
    ///
    /// # Errors
    /// The last failure, if none of the tries reached the store.
    pub async fn settle_persistently(&mut self, settlement: &Settlement) -> Result<Written, StoreError> {
        let give_up_at = deadline(Instant::now(), self.lease.0.terms.lease);
        let (mut pause, mut doubted) = (Duration::from_millis(20), false);
        loop {
            match self.settle(settlement).await {
                Err(error) if Instant::now() + pause < give_up_at => {
                    doubted |= error.effect() == Effect::Unknown;
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                verdict => return verdict.map_err(|error| error.after_doubt(doubted)),
            }
        }
    }

    /// Ends without an answer, by the declared effects, as dropping does.
    ///
    /// # Cancel safety
    /// It may have ended. Calling again is harmless.
    ///
    /// # Errors
    /// If the store cannot answer; the lease then ends by itself.
    pub async fn give_up(&mut self) -> Result<(), StoreError> {
        self.lease.0.stop_renewing();
        give_up(&self.lease.0).await?;
        self.settled = true;
        Ok(())
    }

    /// Declares that `complete_in` has settled the record inside a committed transaction.
    #[cfg(feature = "tower")]
    pub(crate) fn settled_in_transaction(&mut self) {
        self.seal();
    }

    fn seal(&mut self) {
        self.settled = true;
        self.lease.0.stop_renewing();
        // A settled lease is never "lost": let those who wait for that wait for ever.
        self.lease.0.believe_until(Instant::now() + Duration::from_secs(86_400 * 365));
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.lease.0.stop_renewing();
        if self.settled {
            return;
        }
        let held = Arc::clone(&self.lease.0);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = give_up(&held).await {
                    warn!(record = ?held.holder.record, %error, "a dropped lease could not be settled; it will lapse");
                }
            });
        }
    }
}

/// What an end without an answer means: the key is free if nothing can have happened, else the record is
/// indeterminate.
pub(crate) async fn give_up(held: &Held) -> Result<(), StoreError> {
    if held.may_have_had_effect() {
        return surrender(held).await;
    }
    observe::stored("abandon", held.manager.abandon(&held.holder)).await.map(|_| ())
}

async fn surrender(held: &Held) -> Result<(), StoreError> {
    if held.may_have_had_effect() {
        observe::indeterminate(held.holder.record, held.grant.fence, held.grant.attempt);
    }
    observe::stored("renew", held.manager.renew(&held.holder, Duration::ZERO)).await.map(|_| ())
}

/// Polls `work`, and renews the lease meanwhile. It costs no task, and no timer either while the work does not wait; work
/// that blocks its thread is not renewed meanwhile, as if its process were paused, and at once when it waits at last.
pub(crate) async fn renewing<F: Future>(lease: Lease, work: F) -> F::Output {
    let mut work = pin!(work);
    let mut renewal = pin!(renew_while_held(lease.0));
    let (mut waits, mut renewed) = (false, true);
    poll_fn(|cx| {
        // First the lease, so that work which waits for the loss of it does not end before the loss is noted.
        if waits && renewed {
            renewed = renewal.as_mut().poll(cx).is_pending();
        }
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if !waits {
            waits = true;
            renewed = renewal.as_mut().poll(cx).is_pending();
        }
        Poll::Pending
    })
    .await
}

/// Renews every third of the lease, counted from before the claim was sent, until it is told to stop. Belief in the lease
/// is measured from before a renewal was sent, so a slow store or a paused process can only make us give up sooner.
async fn renew_while_held(held: Arc<Held>) {
    loop {
        tokio::select! {
            biased;
            () = held.no_longer_renewed() => return,
            () = sleep_until(held.renew_at()) => {}
        }
        let asked_at = Instant::now();
        let renewed = observe::stored("renew", held.manager.renew(&held.holder, held.terms.lease)).await;
        held.asked_at(asked_at);
        match renewed {
            // It was settled meanwhile, and is nobody's loss.
            _ if held.is_renewed_no_longer() => return,
            Ok(Renewed::Held(left)) if !left.is_zero() => held.believe_until(asked_at + left),
            Ok(Renewed::Settled(_)) => return,
            Ok(Renewed::Held(_) | Renewed::LostTo(_) | Renewed::Missing) => {
                held.believe_until(asked_at);
                observe::lease_lost();
                warn!(record = ?held.holder.record, marked = held.may_have_had_effect(), "the lease is lost");
                return;
            }
            Err(error) => warn!(record = ?held.holder.record, %error, "a renewal failed; it is tried again"),
        }
    }
}
