//! The machine, walked completely: every reachable history up to a depth, against the promises.

use super::*;
use crate::core::identity::{HashKey, RecordId};

const LEASE: Duration = Duration::from_micros(10);
const CAP: Duration = Duration::from_micros(25);
const KEEP: Duration = Duration::from_micros(100);

fn a_claim(token: u8, body: u8, effects: Effects) -> Claim {
    Claim {
        record: RecordId::from_bytes([0; 32]),
        token: OwnerToken::from_bytes([token; 16]),
        fingerprint: Fingerprint::of(&HashKey::default(), &[&[body]]),
        effects,
        terms: crate::core::claim::Terms { lease: LEASE, lease_cap: CAP, retention: KEEP },
    }
}

fn entry(decision: Decision) -> Entry {
    match decision {
        Decision::Write(entry, _) => entry,
        Decision::Answer(answer) => panic!("not granted: {answer:?}"),
    }
}

fn token(token: u8) -> OwnerToken {
    OwnerToken::from_bytes([token; 16])
}

// proves: I-3
#[test]
fn another_request_is_refused_in_every_state() {
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        let fresh = entry(claim(None, &a_claim(1, 1, effects), 0, 1));
        let mut completed = fresh.clone();
        let mut tombstoned = fresh.clone();
        let tombstone = Tombstone {
            reason: crate::core::recording::TombstoneReason::TooLarge,
            status: 200,
            location: None,
        };
        assert_eq!(
            Write::Complete(&Recording::new(200), KEEP).apply(Some(&mut completed), token(1), 1),
            Written::Applied
        );
        assert_eq!(
            Write::Tombstone(&tombstone, KEEP).apply(Some(&mut tombstoned), token(1), 1),
            Written::Applied
        );
        for (found, now) in [(&fresh, 1), (&fresh, 10), (&fresh, 90), (&completed, 1), (&tombstoned, 90)] {
            for other in [1, 2] {
                let answer = claim(Some(found), &a_claim(other, 2, effects), now, 9);
                assert_eq!(answer, Decision::Answer(Answer::Mismatch), "{found:?} at {now}");
            }
        }
    }
}

// proves: I-5
#[test]
fn a_lapsed_attempt_is_taken_over_only_if_nothing_can_have_happened() {
    for (effects, marked, takeover) in [
        (Effects::Local, false, true),
        (Effects::Marked, false, true),
        (Effects::Marked, true, false),
        (Effects::Opaque, false, false),
        (Effects::Opaque, true, false),
    ] {
        let mut found = entry(claim(None, &a_claim(1, 1, effects), 0, 1));
        found.marked = marked;
        let asked = claim(Some(&found), &a_claim(2, 1, effects), 10, 1);
        match asked {
            Decision::Write(next, grant) => {
                assert!(takeover, "{effects:?} {marked}");
                assert_eq!((grant.fence, grant.attempt, next.token), (Fence(2), 2, token(2)));
            }
            Decision::Answer(answer) => {
                assert!(
                    !takeover && matches!(answer, Answer::Indeterminate(_)),
                    "{effects:?} {marked} {answer:?}"
                );
            }
        }
    }
}

// proves: I-7
#[test]
fn every_write_repeated_means_the_same() {
    let tombstone =
        Tombstone { reason: crate::core::recording::TombstoneReason::Streaming, status: 200, location: None };
    let recording = Recording::new(201);
    for write in
        [Write::Mark, Write::Release, Write::Complete(&recording, KEEP), Write::Tombstone(&tombstone, KEEP)]
    {
        let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 1));
        assert_eq!(write.apply(Some(&mut found), token(1), 1), Written::Applied);
        let after = found.clone();
        assert_eq!(write.apply(Some(&mut found), token(1), 2), Written::AlreadyApplied);
        assert_eq!(found, after, "{write:?} changed something the second time");
        assert_eq!(write.apply(Some(&mut found), token(2), 2), Written::LostTo(Fence(1)));
        assert_eq!(write.apply(None, token(1), 2), Written::Missing);
    }
}

#[test]
fn a_mark_forbids_to_release_and_a_finish_forbids_everything_else() {
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Marked), 0, 1));
    assert_eq!(Write::Mark.apply(Some(&mut found), token(1), 1), Written::Applied);
    assert_eq!(Write::Release.apply(Some(&mut found), token(1), 1), Written::Refused(State::InFlight));
    assert_eq!(
        Write::Complete(&Recording::new(200), KEEP).apply(Some(&mut found), token(1), 99),
        Written::Applied
    );
    assert_eq!(Write::Release.apply(Some(&mut found), token(1), 99), Written::Refused(State::Completed));
    assert_eq!(renew(Some(&mut found), token(1), LEASE, 99), Renewed::Settled(State::Completed));
}

#[test]
fn renewal_stops_at_the_cap_and_zero_expires() {
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 1));
    for now in (0..60).step_by(5) {
        let _ = renew(Some(&mut found), token(1), LEASE, now);
        assert!(found.lease_until <= 25);
    }
    assert_eq!(renew(Some(&mut found), token(1), LEASE, 30), Renewed::Held(Duration::ZERO));
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 1));
    assert_eq!(renew(Some(&mut found), token(1), Duration::ZERO, 3), Renewed::Held(Duration::ZERO));
    assert!(matches!(
        claim(Some(&found), &a_claim(2, 1, Effects::Opaque), 3, 9),
        Decision::Answer(Answer::Indeterminate(_))
    ));
}

#[test]
fn a_resolution_needs_the_fence_of_the_attempt_it_resolves() {
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 1));
    let absent = Resolution::Absent;
    assert_eq!(resolve(Some(&mut found), Fence(1), &absent, KEEP, 5), Written::Refused(State::InFlight));
    assert_eq!(resolve(Some(&mut found), Fence(1), &absent, KEEP, 10), Written::Applied);
    assert_eq!(resolve(Some(&mut found), Fence(1), &absent, KEEP, 11), Written::AlreadyApplied);
    let mut again = entry(claim(Some(&found), &a_claim(2, 1, Effects::Opaque), 12, 1));
    assert_eq!(again.attempt, 2);
    assert_eq!(resolve(Some(&mut again), Fence(1), &absent, KEEP, 30), Written::LostTo(Fence(2)));
}

// proves: I-1
#[test]
fn what_is_over_is_claimed_by_any_request_with_a_higher_fence() {
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 5));
    assert_eq!(
        Write::Complete(&Recording::new(200), KEEP).apply(Some(&mut found), token(1), 2),
        Written::Applied
    );
    let other = a_claim(2, 2, Effects::Local);
    assert_eq!(claim(Some(&found), &other, 101, 1), Decision::Answer(Answer::Mismatch));
    let next = entry(claim(Some(&found), &other, 102, 1));
    assert_eq!((next.fence, next.attempt), (Fence(6), 1), "its retention is over");
    let mut found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 5));
    assert_eq!(Write::Release.apply(Some(&mut found), token(1), 2), Written::Applied);
    let next = entry(claim(Some(&found), &other, 3, 1));
    assert_eq!((next.fence, next.attempt), (Fence(6), 2), "it was given back");
    assert_eq!(entry(claim(Some(&found), &other, 3, 9)).fence, Fence(9), "the store gave a higher one");
}

#[test]
fn a_repeated_claim_gets_its_lease_again_and_others_are_told_how_long_it_lasts() {
    let found = entry(claim(None, &a_claim(1, 1, Effects::Opaque), 0, 5));
    let again = entry(claim(Some(&found), &a_claim(1, 1, Effects::Opaque), 4, 9));
    assert_eq!((again.fence, again.attempt, again.lease_until), (Fence(5), 1, 14));
    let other = a_claim(2, 1, Effects::Opaque);
    let micros = Duration::from_micros;
    assert_eq!(
        claim(Some(&again), &other, 11, 9),
        Decision::Answer(Answer::InFlight { retry_after: micros(3) })
    );
    assert_eq!(
        claim(Some(&again), &other, 17, 9),
        Decision::Answer(Answer::Indeterminate(Indeterminate {
            fence: Fence(5),
            attempt: 1,
            since: micros(3)
        }))
    );
    let mut renewed = found;
    assert_eq!(renew(Some(&mut renewed), token(1), LEASE, 3), Renewed::Held(LEASE));
}

#[test]
fn a_sweep_forgets_what_is_over_unless_its_effect_is_open() {
    for (effects, settled, over) in
        [(Effects::Local, false, true), (Effects::Opaque, false, false), (Effects::Opaque, true, true)]
    {
        let mut found = entry(claim(None, &a_claim(1, 1, effects), 0, 1));
        if settled {
            found.finish(Phase::Completed(Recording::new(200)), 2, KEEP);
        }
        assert!(!found.is_purgeable(found.expires_at - 1), "{effects:?} {settled}");
        assert_eq!(found.is_purgeable(found.expires_at), over, "{effects:?} {settled}");
        assert_eq!(found.is_gone(found.expires_at), settled, "{effects:?} {settled}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Claim(u8),
    Mark(u8),
    Complete(u8),
    Release(u8),
    Wait,
}

/// Every history of five steps by two callers: at most one live lease, fences rise, finished stays finished.
// proves: I-1
#[test]
fn no_history_of_two_callers_gives_two_live_leases_or_a_second_run_of_a_marked_effect() {
    let mut alphabet = vec![Step::Wait];
    for caller in [1, 2] {
        alphabet.extend([
            Step::Claim(caller),
            Step::Mark(caller),
            Step::Complete(caller),
            Step::Release(caller),
        ]);
    }
    for effects in [Effects::Local, Effects::Marked, Effects::Opaque] {
        walk(&alphabet, effects, None, 0, 5, &mut History::default());
    }
}

#[derive(Default, Clone)]
struct History {
    highest_fence: u64,
    marked: bool,
    completed: bool,
    live: Option<(u8, u64)>,
}

fn walk(
    alphabet: &[Step],
    effects: Effects,
    found: Option<Entry>,
    now: u64,
    depth: u8,
    history: &mut History,
) {
    if depth == 0 {
        return;
    }
    for step in alphabet {
        let (mut found, mut now, mut history) = (found.clone(), now + 1, history.clone());
        match *step {
            Step::Wait => now += 10,
            Step::Claim(caller) => {
                if let Decision::Write(entry, grant) =
                    claim(found.as_ref(), &a_claim(caller, 1, effects), now, 1)
                {
                    check_grant(&mut history, caller, &grant, &entry, now);
                    found = Some(entry);
                }
            }
            Step::Mark(caller) => {
                let written = Write::Mark.apply(found.as_mut(), token(caller), now);
                history.marked |= written == Written::Applied;
            }
            Step::Complete(caller) => {
                let write = Write::Complete(&Recording::default(), KEEP);
                if write.apply(found.as_mut(), token(caller), now) == Written::Applied {
                    assert!(!history.completed, "completed twice");
                    (history.completed, history.live) = (true, None);
                }
            }
            Step::Release(caller) => {
                if Write::Release.apply(found.as_mut(), token(caller), now) == Written::Applied {
                    assert!(!history.marked, "a marked effect was released");
                    history.live = None;
                }
            }
        }
        walk(alphabet, effects, found, now, depth - 1, &mut history);
    }
}

fn check_grant(history: &mut History, caller: u8, grant: &Grant, entry: &Entry, now: u64) {
    assert!(!history.completed, "granted after completion");
    match history.live {
        Some((holder, _)) if holder == caller && grant.fence.0 == history.highest_fence => {}
        Some((_, until)) => {
            assert!(until <= now, "two live leases");
            assert!(!history.marked, "a marked effect was taken over");
            assert!(grant.fence.0 > history.highest_fence, "fence did not rise");
        }
        None => assert!(grant.fence.0 > history.highest_fence, "fence did not rise"),
    }
    history.highest_fence = grant.fence.0;
    history.live = Some((caller, entry.lease_until));
}
