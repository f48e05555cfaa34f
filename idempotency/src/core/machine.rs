//! The state machine of one record, pure: no clock, no randomness, no I/O. Times are microseconds of the store's clock.
//!
//! ```text
//! absent ─claim→ in flight ─complete→ completed ──retention──→ absent
//!   ↑               │  └────tombstone→ tombstoned ─retention─→ absent
//!   └─(released)←release, only without a mark
//!
//! in flight, lease over:  not opaque and not marked → taken over by the next claim (attempt + 1, new token)
//!                         else indeterminate        → resolve → completed | released
//! ```
//!
//! The memory store runs this code under a mutex. The SQL and Redis stores say the same in their own language and use
//! it to explain why a guarded write touched nothing.

use std::time::Duration;

use crate::core::claim::{Answer, Claim, Effects, Grant, Indeterminate, Renewed, Resolution, State, Written};
use crate::core::fence::Fence;
use crate::core::fingerprint::Fingerprint;
use crate::core::recording::{Recording, Tombstone};
use crate::token::OwnerToken;

/// The time that a released record is remembered, so that a repeated `release` gets the same answer and fences rise.
pub(crate) const RELEASED_FOR: Duration = Duration::from_secs(600);

/// One record as a store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(unreachable_pub, reason = "the sealed trait of the SQL dialects names it")
)]
pub struct Entry {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) effects: Effects,
    pub(crate) token: OwnerToken,
    pub(crate) fence: Fence,
    pub(crate) attempt: u32,
    pub(crate) marked: bool,
    pub(crate) lease_until: u64,
    pub(crate) cap_until: u64,
    /// When a finished record ends; for one in flight, when it may be forgotten if nothing can have happened.
    pub(crate) expires_at: u64,
    pub(crate) phase: Phase,
}

/// The part of a record that changes once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    InFlight,
    Completed(Recording),
    Tombstoned(Tombstone),
    Released,
}

/// The decision about a claim, which a store carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write this entry and grant the claim, atomically.
    Write(Entry, Grant),
    /// Write nothing.
    Answer(Answer),
}

/// Decides a claim. `fence` is any number above those the store gave before for records it has forgotten. The fence of
/// a record that was found is below `u64::MAX`: a store refuses to read one that it cannot count on from.
pub(crate) fn claim(found: Option<&Entry>, claim: &Claim, now: u64, fence: u64) -> Decision {
    let Some(entry) = found.filter(|entry| !entry.is_free(now)) else {
        let (fence, attempt) = match found {
            Some(entry) if matches!(entry.phase, Phase::Released) => {
                (fence.max(entry.fence.0 + 1), entry.attempt.saturating_add(1))
            }
            Some(entry) => (fence.max(entry.fence.0 + 1), 1),
            None => (fence, 1),
        };
        return grant(claim, now, fence, attempt);
    };
    if entry.fingerprint != claim.fingerprint {
        return Decision::Answer(Answer::Mismatch);
    }
    match &entry.phase {
        Phase::Completed(recording) => Decision::Answer(Answer::Replay(recording.clone())),
        Phase::Tombstoned(tombstone) => Decision::Answer(Answer::NotReplayable(tombstone.clone())),
        Phase::InFlight if entry.token == claim.token => grant_again(entry, claim, now),
        Phase::InFlight if entry.lease_until > now => {
            Decision::Answer(Answer::InFlight { retry_after: Duration::from_micros(entry.lease_until - now) })
        }
        Phase::InFlight if entry.may_have_had_effect() => {
            Decision::Answer(Answer::Indeterminate(Indeterminate {
                fence: entry.fence,
                attempt: entry.attempt,
                since: Duration::from_micros(now - entry.lease_until),
            }))
        }
        Phase::InFlight | Phase::Released => {
            grant(claim, now, fence.max(entry.fence.0 + 1), entry.attempt.saturating_add(1))
        }
    }
}

/// Extends the lease of its holder, never past the cap. A zero `lease` ends it: the next claim sees it expired.
pub(crate) fn renew(found: Option<&mut Entry>, token: OwnerToken, lease: Duration, now: u64) -> Renewed {
    let Some(entry) = found.filter(|entry| !entry.is_gone(now)) else { return Renewed::Missing };
    if entry.token != token {
        return Renewed::LostTo(entry.fence);
    }
    if entry.phase != Phase::InFlight {
        return Renewed::Settled(entry.state());
    }
    entry.lease_until = (now + micros(lease)).min(entry.cap_until);
    Renewed::Held(Duration::from_micros(entry.lease_until.saturating_sub(now)))
}

/// A write by a holder.
#[derive(Debug, Clone)]
pub(crate) enum Write<'a> {
    Mark,
    Complete(&'a Recording, Duration),
    Tombstone(&'a Tombstone, Duration),
    Release,
}

impl Write<'_> {
    /// Applies the write to the entry, or says why not.
    pub(crate) fn apply(&self, found: Option<&mut Entry>, token: OwnerToken, now: u64) -> Written {
        let Some(entry) = found.filter(|entry| !entry.is_gone(now)) else { return Written::Missing };
        if let Some(verdict) = self.verdict(entry, token) {
            return verdict;
        }
        match *self {
            Self::Mark => entry.marked = true,
            Self::Complete(recording, retention) => {
                entry.finish(Phase::Completed(recording.clone()), now, retention);
            }
            Self::Tombstone(tombstone, retention) => {
                entry.finish(Phase::Tombstoned(tombstone.clone()), now, retention);
            }
            Self::Release => entry.finish(Phase::Released, now, RELEASED_FOR),
        }
        Written::Applied
    }

    /// Says why the write must not be applied; `None` if it must.
    pub(crate) fn verdict(&self, entry: &Entry, token: OwnerToken) -> Option<Written> {
        if entry.token != token {
            return Some(Written::LostTo(entry.fence));
        }
        match (self, &entry.phase) {
            (Self::Mark, Phase::InFlight) if entry.marked => Some(Written::AlreadyApplied),
            (Self::Release, Phase::InFlight) if entry.marked => Some(Written::Refused(State::InFlight)),
            (_, Phase::InFlight) => None,
            (Self::Complete(..), Phase::Completed(_))
            | (Self::Tombstone(..), Phase::Tombstoned(_))
            | (Self::Release, Phase::Released) => Some(Written::AlreadyApplied),
            (_, _) => Some(Written::Refused(entry.state())),
        }
    }
}

/// Settles an indeterminate record, if it is still the one that was looked at.
pub(crate) fn resolve(
    found: Option<&mut Entry>,
    fence: Fence,
    resolution: &Resolution,
    retention: Duration,
    now: u64,
) -> Written {
    let Some(entry) = found.filter(|entry| !entry.is_gone(now)) else { return Written::Missing };
    if let Some(verdict) = resolve_verdict(entry, fence, resolution, now) {
        return verdict;
    }
    match resolution {
        Resolution::Done(recording) => entry.finish(Phase::Completed(recording.clone()), now, retention),
        Resolution::Absent => entry.finish(Phase::Released, now, RELEASED_FOR),
    }
    Written::Applied
}

/// Says why a resolution must not be applied; `None` if it must.
pub(crate) fn resolve_verdict(
    entry: &Entry,
    fence: Fence,
    resolution: &Resolution,
    now: u64,
) -> Option<Written> {
    if entry.fence != fence {
        return Some(Written::LostTo(entry.fence));
    }
    match (resolution, &entry.phase) {
        (Resolution::Done(_), Phase::Completed(_)) | (Resolution::Absent, Phase::Released) => {
            Some(Written::AlreadyApplied)
        }
        (_, Phase::InFlight) if entry.lease_until <= now => None,
        (_, _) => Some(Written::Refused(entry.state())),
    }
}

impl Entry {
    /// Says whether the retention of a finished record is over, swept or not.
    pub(crate) fn is_gone(&self, now: u64) -> bool {
        self.phase != Phase::InFlight && self.expires_at <= now
    }

    /// Says whether a sweep may forget it: never while it is in flight or indeterminate.
    pub(crate) fn is_purgeable(&self, now: u64) -> bool {
        self.expires_at <= now && (self.phase != Phase::InFlight || !self.may_have_had_effect())
    }

    pub(crate) const fn state(&self) -> State {
        match self.phase {
            Phase::InFlight => State::InFlight,
            Phase::Completed(_) => State::Completed,
            Phase::Tombstoned(_) => State::Tombstoned,
            Phase::Released => State::Released,
        }
    }

    /// Says whether any request may claim it, with any fingerprint.
    fn is_free(&self, now: u64) -> bool {
        self.phase == Phase::Released || self.is_gone(now)
    }

    const fn may_have_had_effect(&self) -> bool {
        self.marked || matches!(self.effects, Effects::Opaque)
    }

    fn finish(&mut self, phase: Phase, now: u64, keep: Duration) {
        self.phase = phase;
        self.expires_at = now + micros(keep);
    }
}

fn grant(claim: &Claim, now: u64, fence: u64, attempt: u32) -> Decision {
    let terms = claim.terms;
    let cap_until = now + micros(terms.lease_cap.max(terms.lease));
    let entry = Entry {
        fingerprint: claim.fingerprint,
        effects: claim.effects,
        token: claim.token,
        fence: Fence(fence),
        attempt,
        marked: false,
        lease_until: now + micros(terms.lease),
        cap_until,
        expires_at: cap_until + micros(terms.retention),
        phase: Phase::InFlight,
    };
    Decision::Write(entry, Grant { fence: Fence(fence), attempt, lease: terms.lease })
}

/// The same claim again: its first answer was lost on the way. It gets that answer, and a fresh lease.
fn grant_again(entry: &Entry, claim: &Claim, now: u64) -> Decision {
    let mut entry = entry.clone();
    entry.lease_until = (now + micros(claim.terms.lease)).min(entry.cap_until);
    let lease = Duration::from_micros(entry.lease_until.saturating_sub(now));
    let grant = Grant { fence: entry.fence, attempt: entry.attempt, lease };
    Decision::Write(entry, grant)
}

/// Microseconds, saturating far beyond any real duration but below what a signed 64-bit column overflows at.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(1 << 60)
}

#[cfg(test)]
mod tests;
