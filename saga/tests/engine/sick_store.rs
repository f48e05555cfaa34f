//! A store that panics or is away, in paused time: it costs the call, never the worker.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::store::{Record, SagaStore, Worker};
use probity_saga::testing::{Call, Explored, FaultyStore, Side, explore_on, start_unattended};
use probity_saga::{
    Backoff, Effect, Evidence, Executed, ForwardStep, MemoryStore, Orchestrator, Outcome, Saga, SagaStep,
    Status, StepContext, StepError, StepPolicy,
};
use tokio::time::{Instant, sleep, timeout};

/// The store is not reached, and says so after ten seconds.
const AWAY: Side = Side::Away(Duration::from_secs(10));

fn memory() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())))
}

/// All records that reach the store from now on.
fn records_of(store: &FaultyStore) -> Arc<Mutex<Vec<Record>>> {
    let records = Arc::<Mutex<Vec<Record>>>::default();
    let log = Arc::clone(&records);
    store.hook(move |seen| {
        if seen.call == Call::Apply && seen.answer.is_none() {
            log.lock().unwrap().extend_from_slice(seen.records);
        }
        async { Ok(()) }
    });
    records
}

/// Takes its time.
struct Reserve(Duration);
struct Charge;
/// Is never done, and wants to be tried again at the end of time.
struct Never;

macro_rules! step {
    ($step:ty, $name:literal, |$self:ident| $execute:expr, $policy:expr) => {
        impl SagaStep for $step {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = $name;
            async fn execute(&$self, _: &StepContext<u32>) -> Result<u32, StepError> {
                $execute
            }
            async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
                Ok(Evidence::new("undone"))
            }
            fn policy(&self) -> StepPolicy {
                $policy
            }
        }
    };
}
step!(
    Reserve,
    "Reserve",
    |self| {
        sleep(self.0).await;
        Ok(1)
    },
    StepPolicy::default()
);
step!(Charge, "Charge", |self| Ok(1), StepPolicy::default());
step!(
    Never,
    "Never",
    |self| Err(StepError::retryable("later")),
    StepPolicy::default().retries(Backoff::constant(3, Duration::MAX))
);

/// Takes its time and must not run twice.
struct Transfer<const N: u32>(Arc<AtomicU32>);

impl<const N: u32> ForwardStep for Transfer<N> {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = if N == 1 { "Withdraw" } else { "Deposit" };

    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(5)).await;
        Ok(N)
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

// proves: S-2, S-7
#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_lease_takes_no_saga_from_a_living_worker() {
    testkit::time_limit();
    let (store, calls) = (memory(), Arc::new(AtomicU32::new(0)));
    let saga = || {
        let saga = Saga::named("transfer").step(Transfer::<1>(calls.clone())).no_compensation("by hand");
        saga.pivot(Transfer::<2>(calls.clone())).build().unwrap()
    };
    let mut started = Vec::new();
    let mut workers = Vec::new();
    for n in 0..60 {
        if n % 30 == 0 {
            let builder = Orchestrator::shared(Arc::clone(&store) as _).register(saga());
            workers.push(builder.start().await.unwrap());
            // Their leases run out at different times.
            sleep(Duration::from_secs(4)).await;
        }
        let worker = workers.last().unwrap();
        started.push((worker.clone(), worker.start("transfer", &n.to_string(), &1_u32).await.unwrap()));
    }
    // The sagas of the first worker are between two steps, those of the second in their first.
    for call in [Call::Heartbeat, Call::Claim, Call::Owned, Call::Apply] {
        store.fail_each(call, AWAY);
    }
    sleep(Duration::from_secs(120)).await;
    store.mend();
    for (worker, saga) in &started {
        let outcome = timeout(Duration::from_secs(600), worker.wait(saga)).await.unwrap().unwrap();
        assert_eq!(outcome, Outcome::Completed);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 120, "a step that must not run twice ran twice, or never");
}

/// Fails once.
struct Tomorrow(Arc<AtomicU32>);

impl ForwardStep for Tomorrow {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Tomorrow";

    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Err(StepError::retryable("the bank is closed")),
            _ => Ok(1),
        }
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().retries(Backoff::constant(1, Duration::from_secs(5 * 3600)))
    }
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_wait_above_the_limit_of_the_store_is_split_and_keeps_its_length() {
    testkit::time_limit();
    let (store, calls) = (memory(), Arc::new(AtomicU32::new(0)));
    let records = records_of(&store);
    let saga = Saga::named("closed").pivot(Tomorrow(calls.clone())).build().unwrap();
    let builder = Orchestrator::shared(Arc::clone(&store) as _).register(saga);
    // The polls of many hours take real time.
    let builder = builder.lease(Duration::from_secs(600)).poll(Duration::from_secs(5));
    let orchestrator = builder.start().await.unwrap();
    let started = orchestrator.start("closed", "C-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(5 * 3600 - 10)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it did not wait");
    let parts: Vec<_> = records.lock().unwrap().iter().filter_map(|record| record.release).collect();
    assert!(parts.iter().all(|part| *part <= Duration::from_secs(3600)) && parts.len() >= 5, "{parts:?}");
    sleep(Duration::from_secs(20)).await;
    let outcome = timeout(Duration::from_secs(20), orchestrator.wait(&started)).await;
    assert_eq!(outcome.unwrap().unwrap(), Outcome::Completed);
}

async fn worker(store: &Arc<FaultyStore>, takes: Duration) -> Orchestrator {
    testkit::time_limit();
    Orchestrator::shared(Arc::clone(store) as _)
        .register(Saga::named("payment").step(Reserve(takes)).step(Charge).build().unwrap())
        .register(Saga::named("bad").step(Charge).build().unwrap())
        .register(Saga::named("good").step(Reserve(takes)).build().unwrap())
        .register(Saga::named("never").step(Never).build().unwrap())
        .start()
        .await
        .unwrap()
}

async fn in_time(orchestrator: &Orchestrator, saga: &str, business_id: &str) -> Outcome {
    let run = timeout(Duration::from_secs(3600), orchestrator.run(saga, business_id, &1_u32)).await;
    run.unwrap().unwrap()
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_of_the_store_costs_that_call_and_not_the_worker() {
    for call in [Call::Heartbeat, Call::Insert, Call::Apply, Call::Claim, Call::Owned] {
        let store = memory();
        let orchestrator = worker(&store, Duration::ZERO).await;
        store.fail(call, Side::Panics);
        let _may_be_refused = orchestrator.start("payment", "FIRST", &1_u32).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(in_time(&orchestrator, "payment", "FIRST").await, Outcome::Completed, "{call:?}");
        assert_eq!(in_time(&orchestrator, "payment", "SECOND").await, Outcome::Completed, "{call:?}");
        // The worker still finds sagas without a driver.
        let lost = start_unattended(&orchestrator, "payment", "LOST", &1_u32).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(orchestrator.wait(&lost).await.unwrap(), Outcome::Completed, "{call:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_repetition_of_a_start_does_not_settle_the_first_one() {
    let store = memory();
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.fail(Call::Insert, Side::After);
    store.fail_each(Call::Insert, AWAY);
    let error = orchestrator.start("payment", "FIRST", &1_u32).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    assert!(store.find("payment", "FIRST").await.unwrap().is_some(), "it was written");
}

#[tokio::test(start_paused = true)]
async fn a_record_over_which_the_store_panics_pauses_its_own_saga() {
    let store = memory();
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.hook(|seen| {
        let bad = |record: &Record| record.change.steps.iter().any(|row| row.name == "Charge");
        assert!(!seen.records.iter().any(bad), "index out of bounds");
        async { Ok(()) }
    });
    let outcome = in_time(&orchestrator, "bad", "B-1").await;
    assert!(
        matches!(&outcome, Outcome::Paused { reason } if reason.contains("index out of bounds")),
        "{outcome:?}"
    );
    assert_eq!(in_time(&orchestrator, "good", "G-1").await, Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_wait_stops_only_its_own_saga() {
    let orchestrator = worker(&memory(), Duration::ZERO).await;
    let _waits = orchestrator.start("never", "N-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(in_time(&orchestrator, "good", "G-1").await, Outcome::Completed);
    let view = orchestrator.get("never", "N-1").await.unwrap().unwrap();
    assert!(view.instance.owner.is_none() && view.steps[0].retries == 1, "{view:?}");
}

#[tokio::test(start_paused = true)]
async fn starts_fail_within_a_minute_while_the_server_is_away() {
    let store = memory();
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.fail_each(Call::Insert, AWAY);
    let began = Instant::now();
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..1024 {
        let orchestrator = orchestrator.clone();
        starts.spawn(async move { orchestrator.start("good", &n.to_string(), &1_u32).await.is_err() });
    }
    assert!(starts.join_all().await.iter().all(|refused| *refused));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

// proves: S-6
#[tokio::test(start_paused = true)]
async fn the_first_result_after_a_lapse_rewrites_the_row_of_the_saga() {
    let store = memory();
    let orchestrator = worker(&store, Duration::from_secs(25)).await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    let before = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap().instance.row_version;
    let lapsed = Worker { id: orchestrator.worker(), lease: Duration::ZERO, pid: 0 };
    let _ = store.heartbeat(&lapsed).await.unwrap();
    let records = records_of(&store);
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let rewrites: Vec<bool> = records.lock().unwrap().iter().map(|record| record.rewrite).collect();
    assert_eq!(rewrites, [true, false], "its own row, then a mere end");
    let after = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap().instance.row_version;
    assert_eq!(after, before + 2);
}

#[tokio::test(start_paused = true)]
async fn explore_reports_an_unreachable_store_and_no_lost_saga() {
    let store = memory();
    store.fail_each(Call::Find, AWAY);
    let explored = explore_on(store, 1_u32, || Saga::named("explored").step(Charge).build()).await;
    let Err(Explored::Broken(broken)) = explored else { panic!("{explored:?}") };
    assert!(broken.to_string().starts_with("the store could not be asked"), "{broken}");
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_worker_with_slow_heartbeats_takes_lost_sagas_over() {
    let store = memory();
    let dead = worker(&store, Duration::ZERO).await;
    start_unattended(&dead, "payment", "LOST", &1_u32).await.unwrap();
    drop(dead);
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.fail_each(Call::Heartbeat, Side::Late(Duration::from_secs(11)));
    let status = async || orchestrator.get("payment", "LOST").await.unwrap().unwrap().instance.status;
    let done = async {
        while status().await != Status::Completed {
            sleep(Duration::from_secs(1)).await;
        }
    };
    // Shorter than the time for which trouble that does not end keeps a worker from taking over.
    timeout(Duration::from_secs(200), done).await.expect("each slow beat counts as an outage");
}

/// Is busy for a while.
struct Busy(Arc<AtomicU32>);

impl ForwardStep for Busy {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Busy";

    async fn execute(&self, _: &StepContext<u32>) -> Result<u32, StepError> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0..15 => Err(StepError::retryable("busy")),
            _ => Ok(1),
        }
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().retries(Backoff::constant(20, Duration::from_secs(2)))
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_saga_paused_and_resumed_within_a_poll_waits_between_its_tries_again() {
    testkit::time_limit();
    let (store, calls) = (memory(), Arc::new(AtomicU32::new(0)));
    // Polls for sagas come between two polls for requests.
    store.fail_each(Call::Claim, Side::Late(Duration::from_secs(3)));
    let saga = Saga::named("busy").pivot(Busy(calls.clone())).build().unwrap();
    let builder = Orchestrator::shared(Arc::clone(&store) as _).register(saga);
    let orchestrator = builder.poll(Duration::from_secs(10)).start().await.unwrap();
    let started = orchestrator.start("busy", "B-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(15)).await;
    orchestrator.operator("ann").pause("busy", "B-1", "look").await.unwrap();
    let outcome = timeout(Duration::from_secs(6), orchestrator.wait(&started)).await.unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Paused { .. }), "{outcome:?}");
    let before = calls.load(Ordering::SeqCst);
    orchestrator.operator("ann").resume("busy", "B-1", "seen").await.unwrap();
    let tried_again = async {
        while calls.load(Ordering::SeqCst) == before {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), tried_again).await.expect("nobody goes on with it");
    sleep(Duration::from_millis(500)).await;
    let tries = calls.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&tries), "{tries} tries in a moment");
    let outcome = timeout(Duration::from_secs(60), orchestrator.wait(&started)).await;
    assert_eq!(outcome.unwrap().unwrap(), Outcome::Completed);
}
