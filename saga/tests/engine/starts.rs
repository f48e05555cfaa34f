//! Starts and waits whose callers go away, and starts that are repeated.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use probity_saga::store::SagaStore;
use probity_saga::testing::{Call, FaultyStore, Side, start_unattended};
use probity_saga::*;
use tokio::time::{Instant, sleep, timeout};

/// The time by which an insert or a load is late.
const MOMENT: Duration = Duration::from_millis(100);

fn memory() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())))
}

/// A step that must not run twice: a saga that takes it for started gets stuck.
struct Once;

impl SagaStep for Once {
    type Input = HashMap<String, u32>;
    type Output = ();
    const NAME: &'static str = "Once";

    async fn execute(&self, _: &StepContext<Self::Input>) -> Result<(), StepError> {
        Ok(())
    }

    async fn compensate(&self, _: &StepContext<Self::Input>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

/// Equal each time, and in another order each time.
fn lines() -> HashMap<String, u32> {
    (0..20).map(|n| (format!("line-{n}"), n)).collect()
}

async fn on(store: &Arc<FaultyStore>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("p").step(Once).build().unwrap();
    Orchestrator::shared(store.clone()).register(saga).start().await.unwrap()
}

/// The same, but it looks for sagas that no task drives only after an hour.
async fn without_a_second_look(store: &Arc<FaultyStore>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("p").step(Once).build().unwrap();
    let builder = Orchestrator::shared(store.clone()).poll(Duration::from_secs(3600)).register(saga);
    builder.start().await.unwrap()
}

/// Waits until saga "1" is done, without a start that could drive it.
async fn is_done(store: &FaultyStore) {
    let done = async {
        loop {
            let found = store.find("p", "1").await.unwrap();
            if found.is_some_and(|journal| journal.instance.status == Status::Completed) {
                return;
            }
            sleep(MOMENT).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), done).await.is_ok(), "no task drives it");
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_caller_goes_away_is_driven_from_its_beginning() {
    let store = memory();
    let p = without_a_second_look(&store).await;
    store.fail(Call::Insert, Side::Late(MOMENT));
    assert!(timeout(MOMENT / 10, p.start("p", "1", &lines())).await.is_err());
    is_done(&store).await;
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_start_dropped_by_a_panicking_sibling_is_driven_from_its_beginning() {
    let store = memory();
    let p = Arc::new(without_a_second_look(&store).await);
    store.fail(Call::Insert, Side::Late(MOMENT));
    let starting = Arc::clone(&p);
    let both = tokio::spawn(async move {
        let input = lines();
        tokio::join!(starting.start("p", "1", &input), async {
            tokio::task::yield_now().await;
            panic!("the sibling's fault");
        })
    });
    assert!(both.await.unwrap_err().is_panic());
    is_done(&store).await;
}

// proves: S-7
#[test]
fn a_start_dropped_outside_of_the_runtime_is_driven_from_its_beginning() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = memory();
    let p = Arc::new(runtime.block_on(without_a_second_look(&store)));
    store.fail(Call::Insert, Side::Late(MOMENT));
    let starting = Arc::clone(&p);
    let mut start = Box::pin(async move { starting.start("p", "1", &lines()).await });
    runtime.block_on(std::future::poll_fn(|context| {
        assert!(start.as_mut().poll(context).is_pending(), "the insert takes a moment");
        std::task::Poll::Ready(())
    }));
    drop(start);
    runtime.block_on(is_done(&store));
    drop(p);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_leaves_its_turn_to_the_next() {
    let store = memory();
    let p = on(&store).await;
    let started = start_unattended(&p, "p", "1", &lines()).await.unwrap();
    store.fail(Call::Load, Side::Late(MOMENT));
    assert!(timeout(MOMENT / 10, p.wait(&started)).await.is_err());
    assert_eq!(p.wait(&started).await.unwrap(), Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_unattended_saga_starts_from_its_beginning_after_its_commit() {
    let p = on(&memory()).await;
    start_unattended(&p, "p", "1", &lines()).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    let status = p.get("p", "1").await.unwrap().unwrap().instance.status;
    assert_eq!(status, Status::Completed, "nobody crashed, and nothing was started");
}

/// Runs another saga of the same orchestrator, and waits for it.
struct Parent(Arc<OnceLock<Orchestrator>>);

impl SagaStep for Parent {
    type Input = HashMap<String, u32>;
    type Output = ();
    const NAME: &'static str = "Parent";

    async fn execute(&self, cx: &StepContext<Self::Input>) -> Result<(), StepError> {
        let p = self.0.get().ok_or_else(|| StepError::fatal("no orchestrator"))?;
        let outcome = p.run("p", &format!("child of {}", cx.business_id()), cx.input()).await?;
        if outcome == Outcome::Completed { Ok(()) } else { Err(StepError::rejected("the child failed")) }
    }

    async fn compensate(&self, _: &StepContext<Self::Input>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }
}

/// At its limit with two sagas. Whoever knows itself is never dropped.
async fn family(store: &Arc<FaultyStore>, knows_itself: bool) -> Orchestrator {
    testkit::time_limit();
    let itself = Arc::new(OnceLock::new());
    let parent = Saga::named("parent").step(Parent(itself.clone())).build().unwrap();
    let child = Saga::named("p").step(Once).build().unwrap();
    let builder = Orchestrator::shared(store.clone()).in_flight(2).register(parent).register(child);
    let p = builder.start_patience(Duration::from_secs(5)).start().await.unwrap();
    if knows_itself {
        let _ = itself.set(p.clone());
    }
    p
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_saga_run_inside_a_step_at_the_limit_gets_the_permit_of_its_parent() {
    let (p, input) = (family(&memory(), true).await, lines());
    let runs = (0..6).map(|n| {
        let (p, input) = (p.clone(), input.clone());
        async move { p.run("parent", &n.to_string(), &input).await }
    });
    let all = timeout(Duration::from_secs(20), futures_util::future::join_all(runs)).await;
    for outcome in all.expect("parents and children wait for each other") {
        assert_eq!(outcome.unwrap(), Outcome::Completed);
    }
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn parents_that_were_taken_over_leave_permits_for_their_children() {
    let store = memory();
    let dead = family(&store, false).await;
    for n in 0..4 {
        start_unattended(&dead, "parent", &n.to_string(), &lines()).await.unwrap();
        start_unattended(&dead, "p", &format!("child of {n}"), &lines()).await.unwrap();
    }
    drop(dead);
    sleep(Duration::from_secs(31)).await;
    let p = family(&store, true).await;
    for n in 0..4 {
        let done = timeout(Duration::from_secs(600), p.run("parent", &n.to_string(), &lines())).await;
        let outcome = done.expect("parents keep the room of their children");
        // The dead worker may have started the children, which must not run twice.
        assert!(matches!(outcome, Ok(Outcome::Compensated { .. })), "{outcome:?}");
    }
}

/// Never ends.
struct Hang;

impl ForwardStep for Hang {
    type Input = HashMap<String, u32>;
    type Output = ();
    const NAME: &'static str = "Hang";

    async fn execute(&self, _: &StepContext<Self::Input>) -> Result<(), StepError> {
        std::future::pending().await
    }

    fn policy(&self) -> StepPolicy {
        StepPolicy::default().timeout(Duration::from_secs(3600))
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_beyond_the_limit_is_answered_busy_and_writes_nothing() {
    testkit::time_limit();
    let store = memory();
    let saga = Saga::named("hang").pivot(Hang).build().unwrap();
    let builder = Orchestrator::shared(store.clone()).in_flight(1).register(saga);
    let p = builder.start_patience(Duration::from_secs(5)).start().await.unwrap();
    let _hangs = p.start("hang", "1", &lines()).await.unwrap();
    let began = Instant::now();
    let refused = p.start("hang", "2", &lines()).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(matches!(refused, SagaError::Busy { in_flight: 1, .. }), "{refused}");
    assert_eq!((refused.effect(), refused.kind()), (Effect::NotApplied, ErrorKind::Unavailable));
    assert!(store.find("hang", "2").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_same_input_in_another_order_is_the_same_saga() {
    let p = on(&memory()).await;
    for _ in 0..3 {
        assert_eq!(p.run("p", "1", &lines()).await.unwrap(), Outcome::Completed);
    }
    let mut other = lines();
    other.insert("line-1".into(), 7);
    let refused = p.run("p", "1", &other).await;
    assert!(matches!(refused, Err(SagaError::InputConflict { .. })), "{refused:?}");
}
