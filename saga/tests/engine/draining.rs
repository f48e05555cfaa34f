//! A start on a draining worker is answered that no saga was started.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use probity_saga::store::{Heartbeat, SagaStore, Worker};
use probity_saga::testing::{Call, FaultyStore};
use probity_saga::{
    Effect, ErrorKind, ForwardStep, MemoryStore, Orchestrator, Saga, SagaError, StepContext, StepError,
};
use tokio::sync::{Notify, Semaphore};

struct Hang;
impl ForwardStep for Hang {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Hang";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        std::future::pending().await
    }
}

async fn worker(store: &Arc<MemoryStore>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("payment").pivot(Hang).build().unwrap();
    let store: Arc<dyn SagaStore> = store.clone();
    Orchestrator::shared(store).in_flight(1).register(saga).start().await.unwrap()
}

fn is_not_started(error: &SagaError) -> bool {
    matches!(error, SagaError::NotStarted)
        && error.effect() == Effect::NotApplied
        && error.kind() == ErrorKind::Unavailable
}

#[tokio::test(start_paused = true)]
async fn a_start_on_a_drained_worker_is_refused_and_writes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let worker = worker(&store).await;
    worker.drain().await.unwrap();
    let refused = worker.run("payment", "P-1", &1_u32).await.unwrap_err();
    assert!(is_not_started(&refused), "{refused}");
    assert!(store.find("payment", "P-1").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_waits_on_a_draining_worker_is_refused_and_writes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let worker = worker(&store).await;
    let hangs = worker.start("payment", "P-1", &1_u32).await.unwrap();
    let waiting = tokio::spawn({
        let worker = worker.clone();
        async move { worker.start("payment", "P-2", &1_u32).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.drain().await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap().unwrap_err();
    assert!(is_not_started(&refused), "{refused}");
    assert!(store.find("payment", "P-2").await.unwrap().is_none(), "a worker that left started a saga");
    // The running saga goes on with another worker; the caller cannot know its state.
    let left = worker.wait(&hangs).await.unwrap_err();
    assert!(matches!(left, SagaError::Draining) && left.effect() == Effect::Unknown, "{left}");
}

// proves: S-7
#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_under_way_does_not_bring_a_drained_worker_back() {
    let memory = Arc::new(MemoryStore::new());
    let store = Arc::new(FaultyStore::new(memory.clone()));
    let (gate, held) = (Arc::new(Semaphore::new(1)), Arc::new(Notify::new()));
    let (permits, reached) = (Arc::clone(&gate), Arc::clone(&held));
    store.hook(move |seen| {
        let holds = (seen.call == Call::Heartbeat && seen.answer.is_none()).then(|| permits.clone());
        if holds.is_some() && permits.available_permits() == 0 {
            reached.notify_one();
        }
        async move {
            if let Some(gate) = holds {
                gate.acquire().await.unwrap().forget();
            }
            Ok(())
        }
    });
    let saga = Saga::named("payment").pivot(Hang).build().unwrap();
    let worker = Orchestrator::shared(store as _).register(saga).start().await.unwrap();
    held.notified().await;
    let draining = tokio::spawn({
        let worker = worker.clone();
        async move { worker.drain().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.add_permits(1);
    draining.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let beat = Worker { id: worker.worker(), lease: Duration::from_secs(30), pid: 0 };
    assert_eq!(memory.heartbeat(&beat).await.unwrap(), Heartbeat::Lapsed, "the worker is there again");
}
