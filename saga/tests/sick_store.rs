//! A store that panics or is away, in paused time: it costs the call, never the worker.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use probity_saga::testing::{Explored, explore_on, start_unattended};
use probity_saga::{
    Backoff, Beat, ClaimRequest, Definition, Evidence, Executed, Inserted, Instance, Intervened,
    Intervention, Journal, ListFilter, MemoryStore, NewSaga, Orchestrator, Outcome, Record, Saga, SagaId,
    SagaStep, SagaStore, StepContext, StepError, StepPolicy, StoreError, Verdict, Worker, WorkerId,
};
use tokio::time::{Instant, sleep, timeout};

#[derive(Clone, Copy)]
enum Illness {
    /// Panics so often.
    Panics(u32),
    /// Is not reached, and says so after ten seconds.
    Away,
    /// Panics over a batch that holds a saga of this step.
    PanicsOver(&'static str),
    /// Says once that the lease had lapsed.
    Lapses,
}

#[derive(Default)]
struct Sick {
    inner: MemoryStore,
    ill: Mutex<HashMap<&'static str, Illness>>,
    records: Mutex<Vec<Record>>,
}

impl Sick {
    fn make_ill(&self, call: &'static str, illness: Illness) {
        self.ill.lock().unwrap().insert(call, illness);
    }

    fn illness(&self, call: &'static str) -> Option<Illness> {
        let mut ill = self.ill.lock().unwrap();
        let illness = ill.get_mut(call)?;
        if let Illness::Panics(times) = illness {
            if *times == 0 {
                return None;
            }
            *times -= 1;
        }
        Some(*illness)
    }

    async fn suffer(&self, call: &'static str) -> Result<(), StoreError> {
        match self.illness(call) {
            Some(Illness::Panics(_)) => panic!("index out of bounds"),
            Some(Illness::Away) => {
                sleep(Duration::from_secs(10)).await;
                Err(StoreError::not_applied(call, "no connection"))
            }
            Some(Illness::PanicsOver(_) | Illness::Lapses) | None => Ok(()),
        }
    }
}

#[async_trait]
impl SagaStore for Sick {
    fn backend(&self) -> &'static str {
        "sick"
    }
    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        self.suffer("beat").await?;
        let beat = self.inner.beat(worker).await?;
        let lapses = self.ill.lock().unwrap().remove("beat");
        Ok(if matches!(lapses, Some(Illness::Lapses)) { Beat::Lapsed } else { beat })
    }
    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.inner.retire(worker).await
    }
    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }
    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.suffer("insert").await?;
        self.inner.insert(sagas).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.suffer("claim").await?;
        self.inner.claim(request).await
    }
    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.suffer("owned").await?;
        self.inner.owned(worker).await
    }
    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.suffer("apply").await?;
        if let Some(Illness::PanicsOver(step)) = self.illness("apply") {
            let bad = |record: &Record| record.change.steps.iter().any(|row| row.name == step);
            assert!(!records.iter().any(bad), "index out of bounds");
        }
        self.records.lock().unwrap().extend_from_slice(records);
        self.inner.apply(records).await
    }
    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.inner.intervene(intervention).await
    }
    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.inner.load(ids).await
    }
    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.suffer("find").await?;
        self.inner.find(saga_type, business_id).await
    }
    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(filter).await
    }
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

async fn worker(store: &Arc<Sick>, takes: Duration) -> Orchestrator {
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
    for call in ["beat", "insert", "apply", "claim", "owned"] {
        let store = Arc::new(Sick::default());
        let orchestrator = worker(&store, Duration::ZERO).await;
        store.make_ill(call, Illness::Panics(1));
        let _may_be_refused = orchestrator.start("payment", "FIRST", &1_u32).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(in_time(&orchestrator, "payment", "FIRST").await, Outcome::Completed, "{call}");
        assert_eq!(in_time(&orchestrator, "payment", "SECOND").await, Outcome::Completed, "{call}");
        // It still finds what nobody drives.
        let lost = start_unattended(&orchestrator, "payment", "LOST", &1_u32).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(orchestrator.wait(&lost).await.unwrap(), Outcome::Completed, "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_over_which_the_store_panics_pauses_its_own_saga() {
    let store = Arc::new(Sick::default());
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.make_ill("apply", Illness::PanicsOver("Charge"));
    let outcome = in_time(&orchestrator, "bad", "B-1").await;
    assert!(
        matches!(&outcome, Outcome::Paused { reason } if reason.contains("index out of bounds")),
        "{outcome:?}"
    );
    assert_eq!(in_time(&orchestrator, "good", "G-1").await, Outcome::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_end_costs_only_its_own_saga() {
    let orchestrator = worker(&Arc::default(), Duration::ZERO).await;
    let _waits = orchestrator.start("never", "N-1", &1_u32).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(in_time(&orchestrator, "good", "G-1").await, Outcome::Completed);
    let view = orchestrator.get("never", "N-1").await.unwrap().unwrap();
    assert!(view.instance.owner.is_none() && view.steps[0].retries == 1, "{view:?}");
}

#[tokio::test(start_paused = true)]
async fn starts_hear_within_a_minute_that_the_server_is_away() {
    let store = Arc::new(Sick::default());
    let orchestrator = worker(&store, Duration::ZERO).await;
    store.make_ill("insert", Illness::Away);
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
async fn the_first_result_after_a_lapse_shows_that_the_saga_moved() {
    let store = Arc::new(Sick::default());
    let orchestrator = worker(&store, Duration::from_secs(25)).await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    let before = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap().instance.row_version;
    store.make_ill("beat", Illness::Lapses);
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    let rewrites: Vec<bool> = store.records.lock().unwrap().iter().map(|record| record.rewrite).collect();
    assert_eq!(rewrites, [true, false], "its own row, then a mere end");
    let after = orchestrator.get("payment", "PAY-1").await.unwrap().unwrap().instance.row_version;
    assert_eq!(after, before + 2);
}

#[tokio::test(start_paused = true)]
async fn explore_does_not_call_a_saga_lost_whose_store_is_away() {
    let store = Arc::new(Sick::default());
    store.make_ill("find", Illness::Away);
    let explored = explore_on(store, 1_u32, || Saga::named("explored").step(Charge).build()).await;
    let Err(Explored::Broken(broken)) = explored else { panic!("{explored:?}") };
    assert!(broken.to_string().starts_with("the store could not be asked"), "{broken}");
}
