//! A start on a draining worker is answered that no saga was started.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use probity_saga::store::SagaStore;
use probity_saga::{
    Effect, ErrorKind, ForwardStep, MemoryStore, Orchestrator, Saga, SagaError, StepContext, StepError,
};

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
