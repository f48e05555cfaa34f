//! Sagas whose worker died, taken over by workers that are busy, few, or killed by what they take over; in paused time.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::testing::start_unattended;
use probity_saga::{
    Evidence, Executed, ListFilter, MemoryStore, Orchestrator, OrchestratorBuilder, Saga, SagaStep, Status,
    StepContext, StepError,
};
use tokio::time::sleep;

#[derive(Default)]
struct Busy {
    now: AtomicU32,
    most: AtomicU32,
}

/// Takes its time.
struct Charge(Duration, Arc<Busy>);
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        let now = self.1.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.1.most.fetch_max(now, Ordering::SeqCst);
        sleep(self.0).await;
        self.1.now.fetch_sub(1, Ordering::SeqCst);
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

fn builder(store: &Arc<MemoryStore>, takes: Duration, busy: &Arc<Busy>) -> OrchestratorBuilder {
    testkit::time_limit();
    let saga = Saga::named("payment").step(Charge(takes, Arc::clone(busy))).build().unwrap();
    Orchestrator::shared(Arc::clone(store) as _).register(saga)
}

async fn worker(store: &Arc<MemoryStore>, takes: Duration) -> Orchestrator {
    builder(store, takes, &Arc::default()).start().await.unwrap()
}

/// Sagas that were started, and whose worker died.
async fn lost(store: &Arc<MemoryStore>, sagas: u32) {
    let dead = worker(store, Duration::ZERO).await;
    for n in 0..sagas {
        start_unattended(&dead, "payment", &format!("LOST-{n}"), &1_u32).await.unwrap();
    }
}

async fn listed(orchestrator: &Orchestrator, status: Status) -> usize {
    let filter = ListFilter { status: Some(status), limit: u32::MAX, ..ListFilter::default() };
    orchestrator.list(&filter).await.unwrap().len()
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_lost_saga_is_taken_over_by_a_worker_that_is_always_busy() {
    let store = Arc::new(MemoryStore::new());
    lost(&store, 1).await;
    let live = builder(&store, Duration::from_millis(100), &Arc::default()).in_flight(4);
    let live = live.start().await.unwrap();
    for n in 0..8 {
        let live = live.clone();
        tokio::spawn(async move {
            for i in 0.. {
                let _done = live.run("payment", &format!("{n}-{i}"), &1_u32).await;
            }
        });
    }
    sleep(Duration::from_secs(600)).await;
    let lost = live.get("payment", "LOST-0").await.unwrap().unwrap().instance;
    assert_eq!(lost.status, Status::Completed, "after ten minutes of ordinary load");
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn thousands_of_lost_sagas_arrive_a_few_at_first_and_all_get_done() {
    let store = Arc::new(MemoryStore::new());
    lost(&store, 3000).await;
    sleep(Duration::from_secs(31)).await;
    let busy = Arc::new(Busy::default());
    let live = builder(&store, Duration::from_millis(10), &busy).start().await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert_eq!(busy.now.load(Ordering::SeqCst), 16);
    while listed(&live, Status::Completed).await < 3000 {
        sleep(Duration::from_millis(100)).await;
    }
    let most = busy.most.load(Ordering::SeqCst);
    assert!((100..=512).contains(&most), "{most} at once, of 1024 that the worker could drive");
}

// proves: S-11
#[tokio::test(start_paused = true)]
async fn a_poison_saga_parks_itself_and_not_its_neighbours() {
    let store = Arc::new(MemoryStore::new());
    lost(&store, 50).await;
    // The process dies 100 ms after each start; an honest step takes a second.
    for _ in 0..6 {
        sleep(Duration::from_secs(31)).await;
        let dies = worker(&store, Duration::from_secs(1)).await;
        sleep(Duration::from_millis(100)).await;
        drop(dies);
    }
    sleep(Duration::from_secs(31)).await;
    let survives = worker(&store, Duration::from_secs(1)).await;
    sleep(Duration::from_secs(300)).await;
    let (parked, done) =
        (listed(&survives, Status::Paused).await, listed(&survives, Status::Completed).await);
    assert!(parked <= 1 && parked + done == 50, "{parked} of 50 are parked, {done} are done");
}

#[tokio::test(start_paused = true)]
async fn suspects_get_done_one_after_the_other_without_waiting_for_the_next_look() {
    let store = Arc::new(MemoryStore::new());
    lost(&store, 10).await;
    for _ in 0..2 {
        sleep(Duration::from_secs(31)).await;
        let dies = worker(&store, Duration::from_secs(1)).await;
        sleep(Duration::from_millis(100)).await;
        drop(dies);
    }
    sleep(Duration::from_secs(31)).await;
    let busy = Arc::new(Busy::default());
    let survives = builder(&store, Duration::from_millis(10), &busy)
        .poll(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    sleep(Duration::from_secs(59)).await;
    assert_eq!(listed(&survives, Status::Completed).await, 10);
    assert_eq!(busy.most.load(Ordering::SeqCst), 1, "two suspects at once");
}
