//! A worker whose store is away for longer than its lease, in paused time: what it learned before
//! the lapse is worth nothing after it.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use probity_saga::store::{
    ClaimRequest, Definition, Heartbeat, Inserted, Intervened, Intervention, Journal, NewSaga, Record,
    SagaStore, Verdict, Worker, WorkerId,
};
use probity_saga::testing::start_unattended;
use probity_saga::{
    Evidence, Executed, Instance, ListFilter, MemoryStore, Orchestrator, Outcome, Saga, SagaId, SagaStep,
    Status, StepContext, StepError, StoreError,
};
use tokio::sync::watch;
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(30);

/// A store whose answers about ownership, and whose beats, can be held back for one worker.
struct Distant {
    inner: Arc<MemoryStore>,
    answers: watch::Sender<bool>,
    beats: watch::Sender<bool>,
    lapses: watch::Sender<u32>,
    held_back: watch::Sender<u32>,
}

impl Distant {
    fn new(inner: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            answers: watch::Sender::new(true),
            beats: watch::Sender::new(true),
            lapses: watch::Sender::new(0),
            held_back: watch::Sender::new(0),
        })
    }

    fn go_away(&self) {
        self.answers.send_replace(false);
        self.beats.send_replace(false);
    }

    async fn answer(&self) {
        if !*self.answers.borrow() {
            self.held_back.send_modify(|count| *count += 1);
            self.answers.subscribe().wait_for(|open| *open).await.unwrap();
        }
    }

    /// The worker hears of its lapse, and then of a good beat, before it hears what it asked for.
    async fn come_back(&self) {
        let lapses = *self.lapses.borrow();
        self.beats.send_replace(true);
        self.lapses.subscribe().wait_for(|now| *now > lapses).await.unwrap();
        sleep(LEASE / 2).await;
        self.answers.send_replace(true);
        sleep(Duration::from_secs(5)).await;
    }
}

#[async_trait]
impl SagaStore for Distant {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }
    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.beats.subscribe().wait_for(|open| *open).await.unwrap();
        let beat = self.inner.heartbeat(worker).await?;
        if beat == Heartbeat::Lapsed {
            self.lapses.send_modify(|count| *count += 1);
        }
        Ok(beat)
    }
    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.inner.retire(worker).await
    }
    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }
    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        let inserted = self.inner.insert(sagas).await;
        self.answer().await;
        inserted
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let claimed = self.inner.claim(request).await?;
        if !claimed.is_empty() {
            self.answer().await;
        }
        Ok(claimed)
    }
    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.inner.owned(worker).await
    }
    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.inner.apply(records).await
    }
    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.inner.intervene(intervention).await
    }
    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        let loaded = self.inner.load(ids).await;
        self.answer().await;
        loaded
    }
    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.inner.find(saga_type, business_id).await
    }
    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(filter).await
    }
}

struct Charge {
    calls: Arc<AtomicU32>,
    hangs: bool,
}
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

/// A worker, and how often it charged.
async fn worker(store: Arc<dyn SagaStore>, hangs: bool) -> (Orchestrator, Arc<AtomicU32>) {
    testkit::time_limit();
    let calls = Arc::new(AtomicU32::new(0));
    let charge = Charge { calls: Arc::clone(&calls), hangs };
    let saga = Saga::named("payment").step(charge).build().unwrap();
    (Orchestrator::shared(store).lease(LEASE).register(saga).start().await.unwrap(), calls)
}

async fn completed(orchestrator: &Orchestrator) {
    loop {
        let view = orchestrator.get("payment", "PAY-1").await.unwrap();
        if view.is_some_and(|view| view.instance.status == Status::Completed) {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

// proves: S-6
#[tokio::test(start_paused = true)]
async fn a_start_that_is_answered_after_a_lapse_executes_nothing() {
    let memory = Arc::new(MemoryStore::new());
    let distant = Distant::new(&memory);
    let (first, late) = worker(distant.clone(), false).await;
    distant.go_away();
    let starter = first.clone();
    let started = tokio::spawn(async move { starter.start("payment", "PAY-1", &1_u32).await });
    distant.held_back.subscribe().wait_for(|count| *count > 0).await.unwrap();

    let (second, charged) = worker(memory, false).await;
    completed(&second).await;
    assert_eq!(charged.load(Ordering::SeqCst), 1);

    distant.come_back().await;
    let _ = started.await.unwrap().unwrap();
    assert_eq!(late.load(Ordering::SeqCst), 0, "charged a second time");
}

// proves: S-6
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_answered_after_a_lapse_executes_nothing() {
    let memory = Arc::new(MemoryStore::new());
    let distant = Distant::new(&memory);
    let (first, late) = worker(distant.clone(), false).await;
    let started = start_unattended(&first, "payment", "PAY-1", &1_u32).await.unwrap();
    distant.go_away();
    let waiter = first.clone();
    let waiting = tokio::spawn(async move { waiter.wait(&started).await });
    distant.held_back.subscribe().wait_for(|count| *count > 0).await.unwrap();

    let (second, charged) = worker(memory, false).await;
    completed(&second).await;
    assert_eq!(charged.load(Ordering::SeqCst), 1);

    distant.come_back().await;
    assert_eq!(waiting.await.unwrap().unwrap(), Outcome::Completed);
    assert_eq!(late.load(Ordering::SeqCst), 0, "charged a second time");
}

// proves: S-6
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_answered_after_a_lapse_executes_nothing() {
    let memory = Arc::new(MemoryStore::new());
    let (dead, _) = worker(memory.clone(), true).await;
    let _ = dead.start("payment", "PAY-1", &1_u32).await.unwrap();
    drop(dead);
    let distant = Distant::new(&memory);
    let (first, late) = worker(distant.clone(), false).await;
    sleep(LEASE * 3 / 4).await;
    distant.go_away();
    // The first worker must be the one that claims, and its last beat is old by then.
    distant.held_back.subscribe().wait_for(|count| *count > 0).await.unwrap();

    let (second, charged) = worker(memory, false).await;
    completed(&second).await;
    assert_eq!(charged.load(Ordering::SeqCst), 1);

    distant.come_back().await;
    assert_eq!(late.load(Ordering::SeqCst), 0, "charged a second time");
    drop(first);
}
