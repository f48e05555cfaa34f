//! The lease: renewal, loss, lost replies, and the effect of dropping it. Time is tokio's paused clock.
#![cfg(feature = "testing")]
#![cfg_attr(
    feature = "testing",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use probity_idempotency::lease::{LeaseGuard, Settlement, claim};
use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::time::{advance, sleep};

fn stores() -> (Arc<FaultyStore>, Arc<dyn IdempotencyManager>) {
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    (Arc::clone(&faulty), faulty)
}

fn a_claim(effects: Effects) -> Claim {
    Claim {
        record: RecordId::from_bytes([7; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms::default(),
    }
}

fn granted(answer: Answer<LeaseGuard>) -> LeaseGuard {
    match answer {
        Answer::Acquired(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

/// Lets background tasks run until they all wait.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

// proves: I-1
#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_the_work_runs_and_lost_at_the_cap() {
    let (_, manager) = stores();
    let guard = granted(claim(&manager, &a_claim(Effects::Local)).await.unwrap());
    let lease = guard.lease();
    for _ in 0..28 {
        sleep(Duration::from_secs(10)).await;
        assert!(!lease.is_lost());
        assert!(matches!(manager.claim(&a_claim(Effects::Local)).await.unwrap(), Answer::InFlight { .. }));
    }
    tokio::time::timeout(Duration::from_secs(21), lease.lost()).await.expect("lost at the cap of 5 min");
    assert_eq!(lease.effect_starting().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    assert!(matches!(manager.claim(&a_claim(Effects::Local)).await.unwrap(), Answer::Acquired(_)));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_gives_up_before_a_takeover_is_possible() {
    let (faulty, manager) = stores();
    let guard = granted(claim(&manager, &a_claim(Effects::Local)).await.unwrap());
    for _ in 0..10 {
        faulty.fail(Call::Renew, Side::Before);
    }
    let lease = guard.lease();
    lease.lost().await;
    assert!(lease.is_lost());
    advance(Duration::from_millis(2)).await;
    assert!(matches!(manager.claim(&a_claim(Effects::Local)).await.unwrap(), Answer::Acquired(_)));
    assert_eq!(lease.effect_starting().await.unwrap_err().kind(), ErrorKind::LeaseLost);
}

// proves: I-1
#[tokio::test(start_paused = true)]
async fn a_late_renewal_counts_from_the_time_it_was_sent() {
    let (faulty, manager) = stores();
    let guard = granted(claim(&manager, &a_claim(Effects::Local)).await.unwrap());
    // The first renewal is sent after 10 s, when the store counts its 30 s from; later ones do not arrive.
    faulty.fail(Call::Renew, Side::Late(Duration::from_secs(4)));
    for _ in 0..10 {
        faulty.fail(Call::Renew, Side::Before);
    }
    let started = tokio::time::Instant::now();
    guard.lease().lost().await;
    let believed = started.elapsed();
    assert!(believed > Duration::from_secs(30) && believed <= Duration::from_secs(41), "{believed:?}");
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn dropping_a_lease_frees_the_key_only_if_nothing_can_have_happened() {
    for (effects, mark, free) in [
        (Effects::Local, false, true),
        (Effects::Marked, false, true),
        (Effects::Marked, true, false),
        (Effects::Opaque, false, false),
    ] {
        let (_, manager) = stores();
        let guard = granted(claim(&manager, &a_claim(effects)).await.unwrap());
        if mark {
            guard.lease().effect_starting().await.unwrap();
        }
        drop(guard);
        settle().await;
        match manager.claim(&a_claim(effects)).await.unwrap() {
            Answer::Acquired(grant) => assert!(free && grant.attempt == 2, "{effects:?} {mark}"),
            Answer::Indeterminate(_) => assert!(!free, "{effects:?} {mark}"),
            other => panic!("{effects:?} {mark}: {other:?}"),
        }
    }
}

// proves: I-7
#[tokio::test(start_paused = true)]
async fn a_call_whose_reply_was_lost_is_settled_by_repeating_it() {
    for side in [Side::Before, Side::After] {
        let (faulty, manager) = stores();
        faulty.fail(Call::Claim, side);
        let mut guard = granted(claim(&manager, &a_claim(Effects::Marked)).await.unwrap());
        faulty.fail(Call::MarkEffect, side);
        guard.lease().effect_starting().await.unwrap();
        faulty.fail(Call::Complete, side);
        let settlement = Settlement::Record(Recording::new(201));
        let written = guard.settle_persistently(&settlement).await.unwrap();
        assert!(matches!(written, Written::Applied | Written::AlreadyApplied));
        let retry = manager.claim(&a_claim(Effects::Marked)).await.unwrap();
        assert_eq!(retry, Answer::Replay(Recording::new(201)), "{side:?}");
    }
}

// proves: I-9
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_claim_is_an_error_and_is_released() {
    let (faulty, manager) = stores();
    faulty.fail(Call::Claim, Side::After);
    faulty.fail(Call::Claim, Side::After);
    let error = claim(&manager, &a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    settle().await;
    assert!(matches!(manager.claim(&a_claim(Effects::Opaque)).await.unwrap(), Answer::Acquired(_)));
}

// proves: I-9
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_claim_is_released_as_soon_as_the_store_answers() {
    let (faulty, manager) = stores();
    for call in [Call::Claim, Call::Claim, Call::Release, Call::Release, Call::Release] {
        faulty.fail(call, if call == Call::Claim { Side::After } else { Side::Before });
    }
    assert!(claim(&manager, &a_claim(Effects::Opaque)).await.is_err());
    settle().await;
    assert!(matches!(manager.claim(&a_claim(Effects::Opaque)).await.unwrap(), Answer::InFlight { .. }));
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(manager.claim(&a_claim(Effects::Opaque)).await.unwrap(), Answer::Acquired(_)));
}

// proves: I-9
#[tokio::test(start_paused = true)]
async fn a_claim_that_reaches_the_store_after_its_caller_left_is_released() {
    let (faulty, manager) = stores();
    faulty.fail(Call::Claim, Side::Before);
    faulty.fail(Call::Claim, Side::Before);
    let late = a_claim(Effects::Opaque);
    assert!(claim(&manager, &late).await.is_err());
    // For example, it waited for a row that another transaction had locked.
    sleep(Duration::from_secs(5)).await;
    assert!(matches!(manager.claim(&late).await.unwrap(), Answer::Acquired(_)));
    sleep(Duration::from_secs(3)).await;
    let retry = manager.claim(&a_claim(Effects::Opaque)).await.unwrap();
    assert!(matches!(retry, Answer::Acquired(_)), "{retry:?}");
}

// proves: I-5
// proves: I-9
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_refused_after_a_lost_reply_is_released() {
    let (faulty, manager) = stores();
    faulty.fail(Call::Claim, Side::After);
    faulty.fail(Call::Claim, Side::Refused);
    let error = claim(&manager, &a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::Unknown));
    // Longer than the lease: a claim that was not released by then may have run.
    sleep(Duration::from_secs(31)).await;
    let retry = manager.claim(&a_claim(Effects::Opaque)).await.unwrap();
    assert!(matches!(retry, Answer::Acquired(_)), "{retry:?}");
}

// proves: I-1
#[tokio::test(start_paused = true)]
async fn work_that_blocks_before_it_first_waits_is_renewed_as_soon_as_it_waits() {
    let (_, manager) = stores();
    let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
    let policy = Policy::default().effects(Effects::Local);
    let rival = Arc::clone(&manager);
    let work = async |lease: Lease| {
        // The clock moves inside one poll, as it does while a thread is blocked.
        advance(Duration::from_secs(21)).await;
        sleep(Duration::from_millis(9_500)).await;
        assert!(!lease.is_lost());
        let late = Claim { record: lease.record(), fingerprint: print, ..a_claim(Effects::Local) };
        assert!(matches!(rival.claim(&late).await.unwrap(), Answer::InFlight { .. }));
        Ok::<_, StoreError>(7)
    };
    let execution = execute(&manager, &scope, &key, print, &policy, work).await.unwrap();
    assert_eq!(execution, Execution::Fresh(7));
}

#[tokio::test(start_paused = true)]
async fn an_effect_whose_mark_cannot_be_confirmed_must_not_start() {
    let (faulty, manager) = stores();
    let guard = granted(claim(&manager, &a_claim(Effects::Marked)).await.unwrap());
    for _ in 0..3 {
        faulty.fail(Call::MarkEffect, Side::After);
    }
    assert_eq!(guard.lease().effect_starting().await.unwrap_err().effect(), Effect::Unknown);
    drop(guard);
    settle().await;
    let after = manager.claim(&a_claim(Effects::Marked)).await.unwrap();
    assert!(matches!(after, Answer::Indeterminate(_)), "the mark was set after all: {after:?}");
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_refusal_does_not_settle_an_earlier_try_whose_reply_was_lost() {
    let (faulty, manager) = stores();
    let mut guard = granted(claim(&manager, &a_claim(Effects::Marked)).await.unwrap());
    for side in [Side::After, Side::Refused, Side::Refused] {
        faulty.fail(Call::MarkEffect, side);
    }
    let unmarked = guard.lease().effect_starting().await.unwrap_err();
    assert_eq!((unmarked.kind(), unmarked.effect()), (ErrorKind::Rejected, Effect::Unknown));
    faulty.fail(Call::Complete, Side::After);
    for _ in 0..99 {
        faulty.fail(Call::Complete, Side::Refused);
    }
    let settlement = Settlement::Record(Recording::new(201));
    let unrecorded = guard.settle_persistently(&settlement).await.unwrap_err();
    assert_eq!((unrecorded.kind(), unrecorded.effect()), (ErrorKind::Rejected, Effect::Unknown));
}

struct Says(Recovered, AtomicU32);

#[async_trait]
impl Recover for Says {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        self.1.fetch_add(1, Ordering::SeqCst);
        assert_eq!((cx.attempt(), cx.downstream_key("channel").len()), (1, 40));
        self.0.clone()
    }
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_lost_attempt_runs_again_only_when_the_hook_proves_absence() {
    let result = Recording::payload("7");
    for (says, expected, runs) in [
        (Recovered::Done(result.clone()), "Replayed(7)", 0),
        (Recovered::Absent, "Fresh(8)", 1),
        (Recovered::Unknown, "Indeterminate", 0),
    ] {
        let (_, manager) = stores();
        let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
        let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
        let lost = async |_| Err::<u32, _>("lost");
        let failed = execute(&manager, &scope, &key, print, &Policy::default(), lost).await;
        assert!(matches!(failed, Err(ExecuteError::Work("lost"))));
        settle().await;
        let (ran, policy) = (AtomicU32::new(0), Policy::default().recover(Says(says, AtomicU32::new(0))));
        let work = async |lease: Lease| {
            ran.fetch_add(1, Ordering::SeqCst);
            assert_eq!(lease.attempt(), 2);
            Ok::<u32, &str>(8)
        };
        let execution = execute(&manager, &scope, &key, print, &policy, work).await.unwrap();
        assert!(format!("{execution:?}").starts_with(expected), "{execution:?}");
        assert_eq!(ran.load(Ordering::SeqCst), runs);
    }
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn a_job_keeps_its_typed_result_and_a_damaged_one_is_an_error() {
    let (_, manager) = stores();
    let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
    let policy = Policy::default();
    for expected in [Execution::Fresh((1, "a".to_owned())), Execution::Replayed((1, "a".to_owned()))] {
        let work = async |_| Ok::<_, StoreError>((1, "a".to_owned()));
        assert_eq!(execute(&manager, &scope, &key, print, &policy, work).await.unwrap(), expected);
    }
    let other = async |_| Ok::<u64, StoreError>(1);
    let error = execute(&manager, &scope, &key, print, &policy, other).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "it ran: {error}");
    assert!(
        matches!(error, ExecuteError::ResultUnreadable { recording, .. } if recording.bytes() == "[1,\"a\"]")
    );
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn a_stored_result_that_cannot_be_decoded_is_reported_as_run() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Payout {
        amount: u64,
        currency: String, // added by a release after the payout
    }
    let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
    for stored in ["{\"amount\":100}", "paid", ""] {
        let (_, manager) = stores();
        let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
        let record = RecordId::derive(&HashKey::default(), &scope, &key);
        let mut earlier = granted(
            claim(&manager, &Claim { record, fingerprint: print, ..a_claim(Effects::Local) }).await.unwrap(),
        );
        assert_eq!(earlier.complete(&Recording::payload(stored)).await.unwrap(), Written::Applied);
        let never = async |_| -> Result<Payout, StoreError> { panic!("ran twice") };
        let error = execute(&manager, &scope, &key, print, &Policy::default(), never).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        assert!(
            matches!(error, ExecuteError::ResultUnreadable { recording, .. } if recording.bytes() == stored)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_memory_store_refuses_new_claims_rather_than_forget_one() {
    let store = MemoryStore::new().capacity(1000);
    let mut refused = 0;
    for record in 0..10 {
        let claim = Claim { record: RecordId::from_bytes([record; 32]), ..a_claim(Effects::Local) };
        match store.claim(&claim).await {
            Ok(_) => {
                let kept = Duration::from_secs(60);
                let _ = store.complete(&claim.holder(), &Recording::new(200), kept).await.unwrap();
            }
            Err(error) => {
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Full, Effect::NotApplied));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 7);
    advance(Duration::from_secs(61)).await;
    assert!(store.claim(&a_claim(Effects::Local)).await.is_ok(), "what has expired makes room");
}

// proves: I-10
#[tokio::test]
async fn a_result_that_cannot_be_stored_is_not_run_again() {
    type Unstorable = std::collections::BTreeMap<(u8, u8), u8>; // JSON has no such keys
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let (scope, key) = (Scope::new("jobs").unwrap(), IdempotencyKey::new("payout-1").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"payout"]);
    let policy = Policy::default().effects(Effects::Local);
    let work = async |_lease: Lease| Ok::<_, std::io::Error>(Unstorable::from([((1, 2), 3)]));
    let error = execute(&manager, &scope, &key, print, &policy, work).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Unrecorded(_)), "{error:?}");
    let never = async |_lease: Lease| -> Result<Unstorable, std::io::Error> { panic!("ran twice") };
    let again = execute(&manager, &scope, &key, print, &policy, never).await.unwrap();
    assert!(matches!(again, Execution::NotReplayable(_)), "{again:?}");
}
