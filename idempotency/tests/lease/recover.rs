//! The `Recover` hook for a lost attempt: one caller at a time asks it, for a limited time.
#![cfg(feature = "testing")]
#![cfg_attr(
    feature = "testing",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

type Manager = Arc<dyn IdempotencyManager>;
type Executed = Result<Execution<u32>, ExecuteError<&'static str>>;

/// Gives this answer to each caller, once the test permits it.
struct Channel {
    says: Recovered,
    asked: AtomicU32,
    may: Semaphore,
}

impl Channel {
    fn that_says(says: Recovered) -> Arc<Self> {
        Arc::new(Self { says, asked: AtomicU32::new(0), may: Semaphore::new(0) })
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Hook(Arc<Channel>);

#[async_trait]
impl Recover for Hook {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        assert_eq!(cx.attempt(), 1);
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.may.acquire().await.unwrap().forget();
        self.0.says.clone()
    }
}

/// Each call has a policy of its own, as those of several processes have.
fn retry(manager: &Manager, channel: &Arc<Channel>) -> JoinHandle<Executed> {
    let (manager, policy) = (Arc::clone(manager), Policy::default().recover(Hook(Arc::clone(channel))));
    tokio::spawn(async move {
        let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
        let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
        execute(&manager, &scope, &key, print, &policy, async |_| Ok(8)).await
    })
}

/// A store in which an opaque attempt was lost.
async fn lost_in(manager: Manager) -> Manager {
    let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
    let lost = async |_| Err::<u32, _>("lost");
    let failed = execute(&manager, &scope, &key, print, &Policy::default(), lost).await;
    assert!(matches!(failed, Err(ExecuteError::Work("lost"))));
    manager
}

async fn lost() -> Manager {
    lost_in(Arc::new(MemoryStore::new())).await
}

/// Lets every task get as far as it can; time stands still otherwise.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn fifty_retries_ask_the_hook_once_and_the_others_are_in_flight() {
    for (says, first, later) in [
        (Recovered::Done(Recording::payload("7")), "Ok(Replayed(7))", "Ok(Replayed(7))"),
        (Recovered::Absent, "Ok(Fresh(8))", "Ok(Replayed(8))"),
        (Recovered::Unknown, "Ok(Indeterminate", "Ok(Indeterminate"),
    ] {
        let (manager, channel) = (lost().await, Channel::that_says(says));
        let retries: Vec<_> = (0..50).map(|_| retry(&manager, &channel)).collect();
        settle().await;
        assert_eq!(channel.asked(), 1);
        let (asking, told): (Vec<_>, Vec<_>) = retries.into_iter().partition(|retry| !retry.is_finished());
        assert_eq!((asking.len(), told.len()), (1, 49));
        for told in told {
            let Execution::InFlight { retry_after } = told.await.unwrap().unwrap() else { panic!("{first}") };
            assert!(!retry_after.is_zero() && retry_after <= Duration::from_secs(10), "{retry_after:?}");
        }
        channel.may.add_permits(1);
        for asking in asking {
            let answer = format!("{:?}", asking.await.unwrap());
            assert!(answer.starts_with(first), "{answer}");
        }
        // Later callers find the resolved record, or the inquiry that ended a moment ago.
        for retry in (0..50).map(|_| retry(&manager, &channel)).collect::<Vec<_>>() {
            let answer = format!("{:?}", retry.await.unwrap());
            assert!(answer.starts_with(later), "{answer}");
        }
        assert_eq!(channel.asked(), 1, "{first}");
    }
}

// Callers that were told of the loss before it was settled, and ask after that.
#[tokio::test(start_paused = true)]
async fn a_caller_that_finds_the_loss_settled_does_not_ask_the_hook() {
    for says in [Recovered::Done(Recording::payload("7")), Recovered::Absent] {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let manager = lost_in(faulty.clone()).await;
        let channel = Channel::that_says(says);
        channel.may.add_permits(9);
        // The late one is told of the loss now, and hears it when the other is done.
        faulty.fail(Call::Claim, Side::Late(Duration::from_secs(3)));
        let late = retry(&manager, &channel);
        settle().await;
        let _ = retry(&manager, &channel).await.unwrap().unwrap();
        let answer = late.await.unwrap().unwrap();
        assert!(matches!(answer, Execution::Replayed(7 | 8)), "{answer:?}");
        assert_eq!(channel.asked(), 1);
    }
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_hanging_hook_is_dropped_and_called_again_later() {
    let (manager, channel) = (lost().await, Channel::that_says(Recovered::Absent));
    let started = Instant::now();
    let asking = retry(&manager, &channel);
    sleep(Duration::from_secs(14)).await;
    assert!(matches!(retry(&manager, &channel).await.unwrap(), Ok(Execution::InFlight { .. })));
    let answer = asking.await.unwrap().unwrap();
    assert!(matches!(answer, Execution::Indeterminate(_)), "{answer:?}");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(15) && waited < Duration::from_secs(16), "{waited:?}");
    // For a second no caller has to wait for it again.
    assert!(matches!(retry(&manager, &channel).await.unwrap(), Ok(Execution::Indeterminate(_))));
    assert_eq!(channel.asked(), 1);
    sleep(Duration::from_millis(1100)).await;
    channel.may.add_permits(1);
    assert!(matches!(retry(&manager, &channel).await.unwrap(), Ok(Execution::Fresh(8))));
    assert_eq!(channel.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_the_hook_can_be_chosen() {
    struct Hangs;
    #[async_trait]
    impl Recover for Hangs {
        async fn recover(&self, _: &RecoverContext) -> Recovered {
            pending().await
        }
    }
    let manager = lost().await;
    let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
    let policy = Policy::default().recover(Hangs).recover_timeout(Duration::from_secs(2));
    let started = Instant::now();
    let answer = execute(&manager, &scope, &key, print, &policy, async |_| Ok::<u32, &str>(8)).await.unwrap();
    assert!(matches!(answer, Execution::Indeterminate(_)), "{answer:?}");
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_inquiry_of_a_process_that_died_lapses() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let manager = lost_in(faulty.clone()).await;
    let channel = Channel::that_says(Recovered::Absent);
    let asking = retry(&manager, &channel);
    settle().await;
    // That process sends no more calls to the store.
    faulty.fail(Call::Release, Side::Before);
    asking.abort();
    settle().await;
    assert!(matches!(retry(&manager, &channel).await.unwrap(), Ok(Execution::InFlight { .. })));
    sleep(Duration::from_secs(10)).await;
    channel.may.add_permits(1);
    assert!(matches!(retry(&manager, &channel).await.unwrap(), Ok(Execution::Fresh(8))));
}

#[test]
#[should_panic(expected = "a limit of zero asks nobody")]
fn a_limit_of_zero_is_refused_where_it_is_given() {
    let _ = Policy::default().recover_timeout(Duration::ZERO);
}
