//! Claiming a record: the question, and every answer a store can give.
//!
//! Invariant: only [`Answer::Acquired`] permits execution. The fingerprint is tested first in every state, so a reused
//! key with another request is never told "retry later" (I-3).

use std::time::Duration;

use crate::core::fence::Fence;
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::RecordId;
use crate::core::recording::{Recording, Tombstone};
use crate::token::{Holder, OwnerToken};

/// The effects that an execution may have outside the transaction that records it. They are declared per route or job,
/// because no library can guess it; it decides what a crash, a panic, an error or an expired lease means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Effects {
    /// Everything happens in one SQL transaction that ends with `complete_in`: if that did not commit, nothing
    /// happened. A lapsed attempt is simply taken over.
    Local,
    /// External calls are announced with `lease.effect_starting().await`: before the mark nothing happened, after it
    /// anything may have.
    Marked,
    /// Anything may have happened from the first instant. The safe side, hence the default.
    #[default]
    Opaque,
}

impl Effects {
    /// The name that stores keep.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Marked => "marked",
            Self::Opaque => "opaque",
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn parse(name: &[u8]) -> Result<Self, crate::error::Unreadable> {
        [Self::Local, Self::Marked, Self::Opaque]
            .into_iter()
            .find(|effects| effects.as_str().as_bytes() == name)
            .ok_or(crate::error::Unreadable("effects"))
    }
}

/// The durations of a claim. Durations travel to the store, which adds them to its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The time that one claim or renewal holds.
    pub lease: Duration,
    /// The end of all renewals, counted from the claim: a deadlocked handler cannot hold a key for ever.
    pub lease_cap: Duration,
    /// The time that a finished record answers retries.
    pub retention: Duration,
}

impl Default for Terms {
    /// 30 s, renewed up to 5 min; 24 h of replays.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            lease_cap: Duration::from_secs(300),
            retention: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// "May I run this?"
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The record of the caller's scope and key.
    pub record: RecordId,
    /// The attempt that asks. The same token may ask again and gets the same answer.
    pub token: OwnerToken,
    /// The request or message that the key is used for.
    pub fingerprint: Fingerprint,
    /// The effects that this attempt may have.
    pub effects: Effects,
    /// The durations of the lease and of the record.
    pub terms: Terms,
}

impl Claim {
    /// The holder this claim makes, if it is granted.
    #[must_use]
    pub const fn holder(&self) -> Holder {
        Holder { record: self.record, token: self.token }
    }
}

/// A granted claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Higher than the fence of every earlier holder.
    pub fence: Fence,
    /// 1 for the first execution, more after takeovers and releases.
    pub attempt: u32,
    /// The time that the lease holds, by the store's clock.
    pub lease: Duration,
}

/// An execution that may have had its effect, and whose attempt is gone. Never executed again without proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indeterminate {
    /// The fence of the lost attempt; a resolution must show it.
    pub fence: Fence,
    /// The lost attempt.
    pub attempt: u32,
    /// The time since its lease ended, by the store's clock.
    pub since: Duration,
}

/// The answer of a store to a claim. Exhaustive on purpose: a new answer must stop every payment service from
/// compiling.
#[must_use = "an answer decides whether the operation may run"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<G = Grant> {
    /// Run it, then complete.
    Acquired(G),
    /// It ran. Give this answer again; do not run it.
    Replay(Recording),
    /// Another attempt is running. Ask again after this long.
    InFlight {
        /// The rest of the running attempt's lease.
        retry_after: Duration,
    },
    /// The key was used for another request. Refuse.
    Mismatch,
    /// It ran, but its answer was not kept. Do not run it.
    NotReplayable(Tombstone),
    /// It may have run; that is not known. Do not run it without proof of absence.
    Indeterminate(Indeterminate),
}

/// The truth about an indeterminate record, told by a [`Recover`](crate::Recover) hook or an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It happened, and this is the answer.
    Done(Recording),
    /// It provably did not happen: the key is free again.
    Absent,
}

/// The answer of a store to a write by a holder.
#[must_use = "only `Applied` and `AlreadyApplied` mean it is written"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is written now.
    Applied,
    /// It was written before, by the same holder; nothing changed.
    AlreadyApplied,
    /// Another attempt holds the record. Roll back.
    LostTo(Fence),
    /// The record's state does not permit it: releasing after the mark, changing what is finished.
    Refused(State),
    /// There is no such record; nothing was created.
    Missing,
}

/// The answer of a store to a renewal.
#[must_use = "a lease that was not renewed is lost"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease holds for this long, which shrinks to nothing at the cap.
    Held(Duration),
    /// The record is finished or released; there is nothing to hold.
    Settled(State),
    /// Another attempt holds the record.
    LostTo(Fence),
    /// There is no such record.
    Missing,
}

/// The state of a record, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// An attempt holds it, or its lease is over and it may be taken over.
    InFlight,
    /// It can be replayed.
    Completed,
    /// It ran and cannot be replayed.
    Tombstoned,
    /// The attempt gave it back; nothing happened.
    Released,
}

impl State {
    /// The name that stores keep.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Completed => "completed",
            Self::Tombstoned => "tombstoned",
            Self::Released => "released",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_stores_keep() {
        let states = [State::InFlight, State::Completed, State::Tombstoned, State::Released];
        assert_eq!(states.map(State::as_str), ["in_flight", "completed", "tombstoned", "released"]);
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
            assert!(Effects::parse(effects.as_str().as_bytes()).is_ok_and(|read| read == effects));
        }
    }
}
