//! Sagas whose worker died, taken over by workers that are busy, few, or killed by what they take over; in paused time.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::store::{ClaimRequest, SagaStore, Worker, WorkerId};
use probity_saga::testing::start_unattended;
use probity_saga::{
    Evidence, Executed, ListFilter, MemoryStore, Orchestrator, OrchestratorBuilder, Saga, SagaStep, Status,
    StepContext, StepError,
};
use tokio::sync::Notify;
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
async fn thousands_of_lost_sagas_are_claimed_in_growing_batches_and_all_finish() {
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
    // The process dies 100 ms after each start; any other step takes a second.
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

/// All sagas that are there are claimed by so many workers that die at once.
async fn die_with_all(store: &Arc<MemoryStore>, deaths: u32) {
    let saga = Saga::named("payment").step(Charge(Duration::ZERO, Arc::default())).build().unwrap();
    sleep(Duration::from_secs(31)).await;
    for _ in 0..deaths {
        let dies = Worker { id: WorkerId::generate(), lease: Duration::from_secs(1), pid: 1 };
        let _first = store.heartbeat(&dies).await.unwrap();
        let all = ClaimRequest {
            worker: dies.id,
            runnable: vec![(saga.name().into(), saga.fingerprint().into())],
            own: Vec::new(),
            limit: u32::MAX,
            stalled_max: u32::MAX,
            suspect_at: u32::MAX,
            suspects: 0,
        };
        assert!(!store.claim(&all).await.unwrap().is_empty());
        sleep(Duration::from_secs(2)).await;
    }
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn sagas_of_dead_workers_are_driven_in_groups_after_the_first() {
    for (deaths, together, seconds) in [(2, 64, 5), (3, 16, 8), (4, 1, 65)] {
        let store = Arc::new(MemoryStore::new());
        lost(&store, 200).await;
        die_with_all(&store, deaths).await;
        let busy = Arc::new(Busy::default());
        // A poll is no pause between two groups.
        let builder = builder(&store, Duration::from_millis(300), &busy).poll(Duration::from_secs(100));
        let survives = builder.start().await.unwrap();
        sleep(Duration::from_millis(299)).await;
        assert_eq!(busy.most.load(Ordering::SeqCst), 1, "the first after {deaths} deaths is not alone");
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(listed(&survives, Status::Completed).await, 200, "after {deaths} deaths");
        assert_eq!(busy.most.load(Ordering::SeqCst), together, "after {deaths} deaths");
    }
}

/// Kills its worker, if it is the one that does.
struct Poison(Arc<Notify>);
impl SagaStep for Poison {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Poison";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        if cx.business_id() == "LOST-40" {
            self.0.notify_one();
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(300)).await;
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }
}

// proves: S-7, S-11
#[tokio::test(start_paused = true)]
async fn a_poison_saga_among_many_is_parked_alone() {
    let store = Arc::new(MemoryStore::new());
    let kills = Arc::new(Notify::new());
    let on = async || {
        let saga = Saga::named("payment").step(Poison(kills.clone())).build().unwrap();
        Orchestrator::shared(store.clone() as _).register(saga).start().await.unwrap()
    };
    let dead = on().await;
    for n in 0..100 {
        start_unattended(&dead, "payment", &format!("LOST-{n}"), &1_u32).await.unwrap();
    }
    drop(dead);
    for _ in 0..5 {
        sleep(Duration::from_secs(31)).await;
        let dies = on().await;
        kills.notified().await;
        drop(dies);
    }
    sleep(Duration::from_secs(31)).await;
    let survives = on().await;
    sleep(Duration::from_secs(60)).await;
    let parked = survives.get("payment", "LOST-40").await.unwrap().unwrap().instance.status;
    assert_eq!((parked, listed(&survives, Status::Completed).await), (Status::Paused, 99));
}
