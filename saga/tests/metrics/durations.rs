//! Histograms show how long steps, sagas, writes and starts take, without a label that grows; and only what is stored is
//! counted.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use probity_saga::store::{ClaimRequest, NewSaga, SagaStore, Worker, WorkerId};
use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaId, SagaStep, SqliteStore, StepContext,
    StepError, store::Document,
};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

/// Takes three seconds, and a second to undo.
struct Slow;
impl SagaStep for Slow {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Slow";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Evidence::new("undone"))
    }
}

/// Refused for an input of zero.
struct Charge;
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        if *cx.input() == 0 { Err(StepError::rejected("nothing to charge")) } else { Ok(1) }
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

/// Every value, by name and labels.
#[derive(Default)]
struct Values(Mutex<BTreeMap<String, Arc<One>>>);

#[derive(Default)]
struct One(Mutex<Vec<f64>>);

impl HistogramFn for One {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.0.lock().unwrap().push(u32::try_from(value).unwrap().into());
    }
    fn absolute(&self, value: u64) {
        self.increment(value);
    }
}

impl Values {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels: Vec<String> = key.labels().map(|label| label.value().to_owned()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name.trim().to_owned()).or_default())
    }

    fn of(&self, name: &str) -> Vec<f64> {
        self.0.lock().unwrap().get(name).map(|one| one.0.lock().unwrap().clone()).unwrap_or_default()
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

fn saga() -> Saga {
    Saga::named("payment").step(Slow).step(Charge).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn steps_sagas_writes_and_waiting_starts_are_timed() {
    testkit::time_limit();
    let values = Values::default();
    let _metrics = metrics::set_default_local_recorder(&values);
    let worker = Orchestrator::new(MemoryStore::new()).in_flight(1).register(saga()).start().await.unwrap();
    let (done, undone) =
        tokio::join!(worker.run("payment", "P-1", &1_u32), worker.run("payment", "P-2", &0_u32));
    assert_eq!(done.unwrap(), Outcome::Completed);
    assert!(matches!(undone.unwrap(), Outcome::Compensated { .. }));

    assert_eq!(values.of("probity_saga_step_seconds payment Slow execute"), [3.0, 3.0]);
    assert_eq!(values.of("probity_saga_step_seconds payment Slow compensate"), [1.0]);
    assert_eq!(values.of("probity_saga_step_seconds payment Charge execute"), [0.0, 0.0]);
    assert_eq!(values.of("probity_saga_seconds payment completed"), [3.0]);
    assert_eq!(values.of("probity_saga_seconds payment compensated"), [4.0]);
    assert_eq!(values.of("probity_saga_start_wait_seconds"), [3.0], "the second start waited for the first");
    let flushes = values.of("probity_saga_flush_seconds");
    assert_eq!(flushes.len(), values.of("probity_saga_batch_size").len(), "{flushes:?}");
    assert!(flushes.len() >= 5, "two results, a result, the turn and an undo: {flushes:?}");
}

async fn database() -> (SqlitePool, SqliteStore, impl Sized) {
    testkit::time_limit();
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("sagas.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    (pool.clone(), SqliteStore::new(pool).await.unwrap(), folder)
}

#[tokio::test]
async fn a_claim_that_is_not_committed_has_parked_nothing() {
    let values = Values::default();
    let _metrics = metrics::set_default_local_recorder(&values);
    let (pool, store, _folder) = database().await;
    let (worker, input) = (WorkerId::generate(), Document::encode(&1).unwrap());
    let (id, hash) = (SagaId::generate(), "hash".to_owned());
    let (saga_type, definition) = ("payment".to_owned(), "v1".to_owned());
    let runnable = vec![(saga_type.clone(), definition.clone())];
    let business_id = "P-1".into();
    let new = NewSaga {
        id,
        saga_type,
        business_id,
        definition,
        input,
        input_hash: hash,
        owner: worker,
        trace: None,
    };
    let _ = store.insert(&[new]).await.unwrap();
    let lives = Worker { id: worker, lease: Duration::from_secs(3600), pid: 1 };
    let _first = store.heartbeat(&lives).await.unwrap();
    // The claim itself passes, and its COMMIT does not.
    sqlx::raw_sql(
        "UPDATE saga_heads SET owner_id = NULL, stalled_claims = 5;
         CREATE TABLE books (id INTEGER PRIMARY KEY REFERENCES books (next) DEFERRABLE INITIALLY DEFERRED, next UNIQUE);
         CREATE TRIGGER nobody_parks AFTER UPDATE ON saga_heads WHEN NEW.status = 'paused'
         BEGIN INSERT INTO books VALUES (1, 2); END",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (own, limit, stalled_max, suspect_at, suspects) = (Vec::new(), 16, 5, 2, 1);
    let request = ClaimRequest { worker, runnable, own, limit, stalled_max, suspect_at, suspects };
    let _refused = store.claim(&request).await.unwrap_err();
    assert_eq!(values.of("probity_saga_poison_total"), [0.0; 0]);
    sqlx::raw_sql("DROP TRIGGER nobody_parks").execute(&pool).await.unwrap();
    assert!(store.claim(&request).await.unwrap().is_empty());
    assert_eq!(values.of("probity_saga_poison_total"), [1.0]);
    assert_eq!(values.of("probity_saga_transitions_total payment paused"), [1.0]);
}

#[tokio::test]
async fn a_result_that_the_database_refuses_is_not_counted_as_stored() {
    let values = Values::default();
    let _metrics = metrics::set_default_local_recorder(&values);
    let (pool, store, _folder) = database().await;
    sqlx::raw_sql(
        "CREATE TRIGGER nobody_completes BEFORE UPDATE ON saga_heads WHEN NEW.status = 'completed'
         BEGIN SELECT RAISE(ABORT, 'nobody completes'); END",
    )
    .execute(&pool)
    .await
    .unwrap();
    let saga = Saga::named("payment").step(Charge).build().unwrap();
    let worker = Orchestrator::new(store).register(saga).start().await.unwrap();
    let outcome = worker.run("payment", "P-1", &1_u32).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Paused { reason } if reason.contains("nobody completes")),
        "{outcome:?}"
    );
    assert_eq!(values.of("probity_saga_transitions_total payment completed"), [0.0; 0]);
    assert_eq!(values.of("probity_saga_transitions_total payment paused"), [1.0]);
}
