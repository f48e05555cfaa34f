//! The owner of a lease, which settles it exactly once.
//!
//! Invariant: a guard that is dropped unsettled gives the key back only if nothing can have happened. Otherwise it
//! ends the lease, and the record is indeterminate: never a blind delete (I-5).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::handle::{Held, Lease};
use crate::core::claim::{State, Written};
use crate::core::recording::{Recording, Tombstone};
use crate::deadline::deadline;
use crate::error::{Effect, StoreError};
use crate::metrics;

/// The way in which a finished run is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Keep the answer for retries.
    Record(Recording),
    /// Keep that it ran.
    Tombstone(Tombstone),
    /// The work did nothing: the key is free again.
    Release,
}

/// The one owner of a claim. Settle it with [`complete`](Self::complete), [`tombstone`](Self::tombstone),
/// [`release`](Self::release) or [`expire`](Self::expire); dropping it settles by the declared effects.
#[must_use = "dropping a guard gives the key back or makes the record indeterminate"]
#[derive(Debug)]
pub struct LeaseGuard {
    lease: Lease,
    settled: bool,
}

impl LeaseGuard {
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease, settled: false }
    }

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
        let written = metrics::time_call("complete", completing).await?;
        metrics::count_completion(recording.size(), held.is_lost(), &written);
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
        let writing = held.manager.tombstone(&held.holder, tombstone, held.terms.retention);
        let written = metrics::time_call("tombstone", writing).await?;
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
    pub async fn release(&mut self) -> Result<Written, StoreError> {
        let held = &self.lease.0;
        let written = metrics::time_call("release", held.manager.release(&held.holder)).await?;
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
    pub async fn expire(&mut self) -> Result<(), StoreError> {
        self.lease.0.stop_renewing();
        self.settled = true;
        expire(&self.lease.0).await
    }

    /// Ends the lease of an attempt whose answer is not final: the record stays open until the hook has the last one.
    #[cfg(feature = "tower")]
    pub(crate) async fn leave_open(&mut self) -> Result<(), StoreError> {
        self.lease.0.stop_renewing();
        self.settled = true;
        end_lease(&self.lease.0).await
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
            Settlement::Tombstone(tombstone) => self.tombstone(tombstone).await,
            Settlement::Release => self.release().await,
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
        let until = deadline(Instant::now(), self.lease.0.terms.lease);
        let (mut pause, mut doubted) = (Duration::from_millis(20), false);
        loop {
            match self.settle(settlement).await {
                Err(error) if Instant::now() + pause < until => {
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
    pub async fn release_or_expire(&mut self) -> Result<(), StoreError> {
        self.lease.0.stop_renewing();
        release_or_expire(&self.lease.0).await?;
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
        // A settled lease is never "lost": `Lease::lost` then waits for ever.
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
                if let Err(error) = release_or_expire(&held).await {
                    warn!(record = ?held.holder.record, %error, "a dropped lease could not be settled; it expires by itself");
                }
            });
        }
    }
}

/// Ends an attempt without an answer: the key is free if nothing can have happened, else the record is
/// indeterminate.
pub(crate) async fn release_or_expire(held: &Held) -> Result<(), StoreError> {
    if held.may_have_had_effect() {
        return expire(held).await;
    }
    metrics::time_call("release", held.manager.release(&held.holder)).await.map(|_| ())
}

async fn expire(held: &Held) -> Result<(), StoreError> {
    if held.may_have_had_effect() {
        metrics::count_indeterminate(held.holder.record, held.grant.fence, held.grant.attempt);
    }
    end_lease(held).await
}

async fn end_lease(held: &Held) -> Result<(), StoreError> {
    metrics::time_call("renew", held.manager.renew(&held.holder, Duration::ZERO)).await.map(|_| ())
}
