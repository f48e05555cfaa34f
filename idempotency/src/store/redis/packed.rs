//! A record as Redis keeps it: one string, a head of fixed places and what follows it.
//!
//! ```text
//! 0    the format, 1                     80   the end of the key when it was claimed (14 digits)
//! 1    state: i c t r g                  94   how long it was to be kept then (14)
//! 2    token (16 bytes)                  108  when the lease ends (14)
//! 18   whether the effect is marked      122  and the last renewal (14)
//! 19   effects: l m o                    136  of a completed record: status (5), length of the
//! 20   fingerprint (33 bytes)                 headers (10), headers, body
//! 53   attempt (10 digits)                    of a tombstone: status (5), length of the reason (2),
//! 63   fence (17)                             reason, whether there is a location (1), location
//! ```
//!
//! Times are milliseconds of the server's clock; leases count from the claim. A claim does not contain
//! its own time: the time is the key's end by the server's clock, less how long the key is kept. Zeros in place of the end
//! and of the fence mean that the key's own end still gives both.

use std::time::Duration;

use bytes::Bytes;

use crate::core::claim::{Claim, Effects};
use crate::core::fence::Fence;
use crate::core::fingerprint::Fingerprint;
use crate::core::machine::{self, Entry, Phase, RELEASED_FOR};
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::error::{StoreError, Unreadable};
use crate::token::OwnerToken;

const HEAD: usize = 136;
/// The highest fence that the scripts count on from without loss: numbers of Lua are doubles. Microseconds of the
/// server's clock reach it in the year 2255.
const FENCE_MAX: u64 = (1 << 53) - 1;
/// The time that a record is kept which has to be settled by hand: for ever, in a number that cannot overflow.
pub(super) const BY_HAND: u64 = 100 * 365 * 24 * 3_600_000;

/// Whole milliseconds, never fewer than asked for.
fn millis(time: Duration) -> u64 {
    machine::micros(time).div_ceil(1000)
}

/// Converts a time of the server into microseconds. One that no clock shows becomes the end of time.
fn micros(millis: u64) -> u64 {
    millis.saturating_mul(1000)
}

/// Converts the time to keep something into milliseconds; a key needs at least one.
pub(super) fn keep(time: Duration) -> u64 {
    millis(time).clamp(1, BY_HAND)
}

/// When a lease ends, counted from now: a millisecond later, because the server's clock counts whole ones.
pub(super) fn lease(time: Duration) -> u64 {
    if time.is_zero() { 0 } else { millis(time) + 1 }
}

/// A lease as its holder may believe in it.
pub(super) fn believed(millis: u64) -> Duration {
    Duration::from_millis(millis.saturating_sub(1))
}

/// Limits the rest of a lease, for those who wait for it: the length that was asked for at most, and nothing only if it
/// is over.
pub(super) fn left(time: Duration) -> Duration {
    let millisecond = Duration::from_millis(1);
    if time.is_zero() { time } else { time.saturating_sub(millisecond).max(millisecond) }
}

/// The time that a claim is kept if no attempt finishes it.
pub(super) fn claim_kept(claim: &Claim) -> u64 {
    match claim.effects {
        Effects::Opaque => BY_HAND,
        Effects::Local | Effects::Marked => {
            let cap = claim.terms.lease_cap.max(claim.terms.lease);
            keep(cap.saturating_add(claim.terms.retention).max(RELEASED_FOR))
        }
    }
}

/// The first bytes of a record that this token holds.
pub(super) fn held_by(token: &OwnerToken) -> [u8; 18] {
    let mut start = *b"1i0123456789abcdef";
    start[2..].copy_from_slice(token.as_bytes());
    start
}

/// The record a first claim leaves.
pub(super) fn claimed(claim: &Claim, kept: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD);
    record.extend_from_slice(&held_by(&claim.token));
    record.push(b'0');
    record.push(effects_letter(claim.effects));
    record.extend_from_slice(claim.fingerprint.as_bytes());
    digits(&mut record, 1, 10);
    digits(&mut record, 0, 17);
    digits(&mut record, 0, 14);
    digits(&mut record, kept, 14);
    digits(&mut record, lease(claim.terms.lease), 14);
    digits(&mut record, lease(claim.terms.lease_cap.max(claim.terms.lease)), 14);
    record
}

/// Encodes the part that follows the head of a completed record.
pub(super) fn completed(recording: &Recording) -> Vec<u8> {
    let (headers, body) = (recording.encode_headers(), recording.bytes());
    let mut tail = Vec::with_capacity(15 + headers.len() + body.len());
    digits(&mut tail, u64::from(recording.status()), 5);
    digits(&mut tail, headers.len() as u64, 10);
    tail.extend_from_slice(&headers);
    tail.extend_from_slice(body);
    tail
}

/// Encodes the part that follows the head of a tombstone.
pub(super) fn tombstoned(tombstone: &Tombstone) -> Vec<u8> {
    let (reason, mut tail) = (tombstone.reason.as_str(), Vec::new());
    digits(&mut tail, u64::from(tombstone.status), 5);
    digits(&mut tail, reason.len() as u64, 2);
    tail.extend_from_slice(reason.as_bytes());
    tail.push(if tombstone.location.is_some() { b'1' } else { b'0' });
    tail.extend_from_slice(tombstone.location.as_deref().unwrap_or_default());
    tail
}

/// Reads a record, or its head alone: then a finished one has nothing in it. `None` if it was not to be kept at all.
/// `since` is when it was claimed; what Redis still has is not over.
pub(super) fn read(packed: Vec<u8>, since: u64) -> Result<Option<Entry>, StoreError> {
    let packed = Bytes::from(packed);
    let (head, tail) = packed.split_at_checked(HEAD).ok_or(Unreadable("record"))?;
    let [b'1', state, ..] = *head else { return Err(Unreadable("record").into()) };
    let tail = packed.slice_ref(tail);
    let phase = match state {
        b'g' => return Ok(None),
        b'i' => Phase::InFlight,
        b'r' => Phase::Released,
        b'c' if tail.is_empty() => Phase::Completed(Recording::default()),
        b'c' => Phase::Completed(recording(&tail)?),
        b't' => Phase::Tombstoned(tombstone(&tail)?),
        _ => return Err(Unreadable("state").into()),
    };
    let fence = match number(&head[63..80])? {
        0 => micros(since),
        fence => fence,
    };
    if fence > FENCE_MAX {
        return Err(Unreadable("fence").into());
    }
    Ok(Some(Entry {
        fingerprint: Fingerprint::from_bytes(fixed(&head[20..53], "fingerprint")?),
        effects: effects(head[19])?,
        token: OwnerToken::from_bytes(fixed(&head[2..18], "token")?),
        fence: Fence(fence),
        attempt: u32::try_from(number(&head[53..63])?).map_err(|_| Unreadable("attempt"))?,
        marked: head[18] == b'1',
        lease_until: micros(since.saturating_add(number(&head[108..122])?)),
        cap_until: micros(since.saturating_add(number(&head[122..136])?)),
        expires_at: u64::MAX,
        phase,
    }))
}

pub(super) fn recording(tail: &Bytes) -> Result<Recording, StoreError> {
    let (status, rest) = tail.split_at_checked(5).ok_or(Unreadable("status"))?;
    let (length, rest) = rest.split_at_checked(10).ok_or(Unreadable("headers"))?;
    let length = usize::try_from(number(length)?).map_err(|_| Unreadable("headers"))?;
    let (headers, body) = rest.split_at_checked(length).ok_or(Unreadable("headers"))?;
    Recording::decode(status_of(status)?, headers, tail.slice_ref(body))
}

pub(super) fn tombstone(tail: &Bytes) -> Result<Tombstone, Unreadable> {
    if tail.is_empty() {
        return Ok(Tombstone { reason: TombstoneReason::NotStored, status: 0, location: None });
    }
    let (status, rest) = tail.split_at_checked(5).ok_or(Unreadable("status"))?;
    let (length, rest) = rest.split_at_checked(2).ok_or(Unreadable("reason"))?;
    let length = usize::try_from(number(length)?).map_err(|_| Unreadable("reason"))?;
    let (reason, rest) = rest.split_at_checked(length).ok_or(Unreadable("reason"))?;
    let (located, location) = rest.split_first().ok_or(Unreadable("location"))?;
    let location = (*located == b'1').then(|| tail.slice_ref(location));
    Ok(Tombstone { reason: TombstoneReason::parse(reason)?, status: status_of(status)?, location })
}

fn status_of(status: &[u8]) -> Result<u16, Unreadable> {
    u16::try_from(number(status)?).map_err(|_| Unreadable("status"))
}

/// A letter each; they begin differently.
fn effects_letter(effects: Effects) -> u8 {
    effects.as_str().as_bytes()[0]
}

fn effects(letter: u8) -> Result<Effects, Unreadable> {
    let all = [Effects::Local, Effects::Marked, Effects::Opaque];
    all.into_iter().find(|effects| effects_letter(*effects) == letter).ok_or(Unreadable("effects"))
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Unreadable> {
    bytes.try_into().map_err(|_| Unreadable(what))
}

/// Appends a number in this many digits; one too long is the longest there is.
fn digits(to: &mut Vec<u8>, number: u64, places: usize) {
    let start = to.len();
    to.resize(start + places, b'9');
    let (mut rest, place) = (number, &mut to[start..]);
    if places < 20 && number >= 10_u64.pow(u32::try_from(places).unwrap_or(19)) {
        return;
    }
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
}

fn number(field: &[u8]) -> Result<u64, Unreadable> {
    let digit = |number: u64, digit: &u8| match digit {
        b'0'..=b'9' => Some(number.checked_mul(10)? + u64::from(digit - b'0')),
        _ => None,
    };
    field.iter().try_fold(0, digit).ok_or(Unreadable("number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..300), since in 0_u64..1 << 42) {
            let _ = read(garbage, since);
        }

        #[test]
        fn a_damaged_record_is_an_error_and_never_a_panic(place in 0_usize..180, byte: u8, since in 0_u64..1 << 42) {
            let mut record = claimed(&a_claim(), BY_HAND);
            record[1] = b'c';
            record.extend(completed(&Recording::new(201).header("a", "b").body("paid")));
            let place = place % record.len();
            record[place] = byte;
            let _ = read(record, since);
        }

        // proves: I-2
        #[test]
        fn tombstones_survive_their_stored_form(status: u16, location in prop::option::of(prop::collection::vec(any::<u8>(), 0..40))) {
            let written = Tombstone { reason: TombstoneReason::Encoded, status, location: location.map(Bytes::from) };
            prop_assert_eq!(tombstone(&tombstoned(&written).into()).expect("reads"), written);
        }
    }

    fn a_claim() -> Claim {
        Claim {
            record: crate::core::identity::RecordId::from_bytes([1; 32]),
            token: OwnerToken::from_bytes([2; 16]),
            fingerprint: Fingerprint::from_bytes([3; 33]),
            effects: Effects::Marked,
            terms: crate::core::claim::Terms::default(),
        }
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        let claim = a_claim();
        let entry = read(claimed(&claim, claim_kept(&claim)), 1_000).expect("reads").expect("is there");
        assert_eq!(
            (entry.token, entry.fingerprint, entry.effects),
            (claim.token, claim.fingerprint, claim.effects)
        );
        assert_eq!((entry.fence, entry.attempt, entry.marked), (Fence(1_000_000), 1, false));
        assert_eq!((entry.lease_until, entry.cap_until), (31_001_000, 301_001_000));
    }

    #[test]
    fn numbers_too_long_for_their_field_are_capped() {
        let mut written = Vec::new();
        digits(&mut written, 12_345, 3);
        digits(&mut written, 42, 5);
        assert_eq!(written, b"99900042");
    }
}
