//! Starts and waits whose callers go away, and starts that are repeated.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use probity_saga::testing::start_unattended;
use probity_saga::*;
use tokio::time::{sleep, timeout};

/// A store whose next insert or load takes a moment.
#[derive(Default)]
struct Slow {
    inner: MemoryStore,
    insert: AtomicBool,
    load: AtomicBool,
}

const MOMENT: Duration = Duration::from_millis(100);

#[async_trait]
impl SagaStore for Slow {
    fn backend(&self) -> &'static str {
        "slow"
    }

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        self.inner.beat(worker).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.inner.retire(worker).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        if self.insert.swap(false, Ordering::SeqCst) {
            sleep(MOMENT).await;
        }
        self.inner.insert(sagas).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.inner.claim(request).await
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

    async fn load(&self, sagas: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        if self.load.swap(false, Ordering::SeqCst) {
            sleep(MOMENT).await;
        }
        self.inner.load(sagas).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.inner.find(saga_type, business_id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(filter).await
    }
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

async fn on(store: &Arc<Slow>) -> Orchestrator {
    testkit::time_limit();
    let saga = Saga::named("p").step(Once).build().unwrap();
    Orchestrator::shared(store.clone()).register(saga).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_caller_goes_away_is_driven_from_its_beginning() {
    let store = Arc::new(Slow::default());
    let p = on(&store).await;
    store.insert.store(true, Ordering::SeqCst);
    assert!(timeout(MOMENT / 10, p.start("p", "1", &lines())).await.is_err());
    assert_eq!(p.run("p", "1", &lines()).await.unwrap(), Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_whose_caller_goes_away_leaves_its_turn_to_the_next() {
    let store = Arc::new(Slow::default());
    let p = on(&store).await;
    let started = start_unattended(&p, "p", "1", &lines()).await.unwrap();
    store.load.store(true, Ordering::SeqCst);
    assert!(timeout(MOMENT / 10, p.wait(&started)).await.is_err());
    assert_eq!(p.wait(&started).await.unwrap(), Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn the_same_input_in_another_order_is_the_same_saga() {
    let p = on(&Arc::default()).await;
    for _ in 0..3 {
        assert_eq!(p.run("p", "1", &lines()).await.unwrap(), Outcome::Completed);
    }
    let mut other = lines();
    other.insert("line-1".into(), 7);
    let refused = p.run("p", "1", &other).await;
    assert!(matches!(refused, Err(SagaError::InputConflict { .. })), "{refused:?}");
}
