//! A worker whose store is away for longer than its lease, in paused time: answers from before the lapse do not count
//! after it.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::store::{Heartbeat, SagaStore};
use probity_saga::testing::{Answered, Call, FaultyStore, Observed, start_unattended};
use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, Status, StepContext, StepError,
    store::StoreError,
};
use tokio::sync::watch;
use tokio::time::sleep;

const LEASE: Duration = Duration::from_secs(30);

/// A store whose answers about ownership, and whose beats, can be held back for one worker.
struct Distant {
    store: Arc<FaultyStore>,
    answers: watch::Sender<bool>,
    beats: watch::Sender<bool>,
    lapses: watch::Sender<u32>,
    held_back: watch::Sender<u32>,
}

impl Distant {
    fn new(inner: &Arc<MemoryStore>) -> Arc<Self> {
        let distant = Arc::new(Self {
            store: Arc::new(FaultyStore::new(inner.clone())),
            answers: watch::Sender::new(true),
            beats: watch::Sender::new(true),
            lapses: watch::Sender::new(0),
            held_back: watch::Sender::new(0),
        });
        let it = Arc::clone(&distant);
        distant.store.hook(move |seen| it.hold_back(seen));
        distant
    }

    fn hold_back(&self, seen: Observed<'_>) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let held = match (seen.call, seen.answer) {
            (Call::Heartbeat, None) => Some(&self.beats),
            (Call::Insert | Call::Load, Some(_)) => Some(&self.answers),
            (Call::Claim, Some(Answered::Claim(claimed))) if !claimed.is_empty() => Some(&self.answers),
            _ => None,
        };
        if let Some(Answered::Heartbeat(Heartbeat::Lapsed)) = seen.answer {
            self.lapses.send_modify(|count| *count += 1);
        }
        if held.is_some_and(|gate| std::ptr::eq(gate, &self.answers) && !*gate.borrow()) {
            self.held_back.send_modify(|count| *count += 1);
        }
        let open = held.map(watch::Sender::subscribe);
        async move {
            if let Some(mut open) = open {
                open.wait_for(|open| *open).await.unwrap();
            }
            Ok(())
        }
    }

    fn go_away(&self) {
        self.answers.send_replace(false);
        self.beats.send_replace(false);
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
    let (first, late) = worker(distant.store.clone(), false).await;
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
    let (first, late) = worker(distant.store.clone(), false).await;
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
    let (first, late) = worker(distant.store.clone(), false).await;
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
