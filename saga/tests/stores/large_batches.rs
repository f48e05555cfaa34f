//! Results too large for one batch: they are split, and each gets its own verdict.
#![cfg(all(feature = "sqlite", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use probity_saga::store::{
    ClaimRequest, Definition, Heartbeat, Inserted, Intervened, Intervention, Journal, NewSaga, Record,
    SagaStore, Verdict, Worker, WorkerId,
};
use probity_saga::{
    Evidence, Executed, Instance, ListFilter, Orchestrator, Outcome, PostgresStore, Saga, SagaId, SagaStep,
    SqliteStore, StepContext, StepError, StoreError,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;

/// Nearly as many bytes as an output may have.
const LARGE: usize = 900 * 1024;

const SAGAS: usize = 24;

/// Weighs each batch of results, and lets it through when there is a permit.
struct Scales {
    inner: Arc<dyn SagaStore>,
    gate: Semaphore,
    weighed: Mutex<Vec<(usize, Vec<Verdict>)>>,
}

fn weight(record: &Record) -> usize {
    let outputs = record.change.steps.iter().filter_map(|step| step.output.as_ref());
    outputs.map(|output| output.as_json().len()).sum()
}

#[async_trait]
impl SagaStore for Scales {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }
    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.inner.heartbeat(worker).await
    }
    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.inner.retire(worker).await
    }
    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }
    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.inner.insert(sagas).await
    }
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.inner.claim(request).await
    }
    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.inner.owned(worker).await
    }
    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.gate.acquire().await.unwrap().forget();
        let verdicts = self.inner.apply(records).await?;
        let weight = records.iter().map(weight).sum();
        self.weighed.lock().unwrap().push((weight, verdicts.clone()));
        Ok(verdicts)
    }
    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.inner.intervene(intervention).await
    }
    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.inner.load(ids).await
    }
    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.inner.find(saga_type, business_id).await
    }
    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(filter).await
    }
}

struct Scan(Arc<AtomicUsize>);
impl SagaStep for Scan {
    type Input = u32;
    type Output = String;
    const NAME: &'static str = "Scan";
    async fn execute(&self, _: &StepContext<u32>) -> Result<String, StepError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok("x".repeat(LARGE))
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("forgotten"))
    }
}

/// While the first result is being written all the others are handed in. One saga is taken away meanwhile.
async fn split(store: impl SagaStore, take_away: impl AsyncFnOnce()) {
    testkit::time_limit();
    let scales =
        Arc::new(Scales { inner: Arc::new(store), gate: Semaphore::new(0), weighed: Mutex::default() });
    let scanned = Arc::new(AtomicUsize::new(0));
    let saga = Saga::named("claim").step(Scan(Arc::clone(&scanned))).build().unwrap();
    let builder = Orchestrator::shared(Arc::clone(&scales) as _).register(saga);
    // Nobody looks for the saga that was taken away.
    let orchestrator = builder.poll(Duration::from_secs(3600)).start().await.unwrap();
    let mut started = Vec::new();
    for number in 0..SAGAS {
        started.push(orchestrator.start("claim", &format!("C-{number}"), &1_u32).await.unwrap());
    }
    // On one thread a result is handed in as soon as its step has ended.
    while scanned.load(Ordering::SeqCst) < SAGAS {
        tokio::task::yield_now().await;
    }
    take_away().await;
    scales.gate.add_permits(SAGAS);
    for started in &started[..SAGAS - 1] {
        let outcome = timeout(Duration::from_secs(60), orchestrator.wait(started)).await;
        assert_eq!(outcome.unwrap().unwrap(), Outcome::Completed);
    }
    let written = async {
        while scales.weighed.lock().unwrap().iter().map(|(_, verdicts)| verdicts.len()).sum::<usize>() < SAGAS
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();

    let weighed = scales.weighed.lock().unwrap();
    let heaviest = weighed.iter().map(|(weight, _)| *weight).max().unwrap();
    assert!(heaviest <= 4 * MIB, "a batch of {heaviest} bytes");
    assert!(heaviest > 3 * MIB, "what fits goes together: {heaviest} bytes");
    let verdicts = weighed.iter().flat_map(|(_, verdicts)| verdicts);
    let fenced = verdicts.filter(|verdict| **verdict == Verdict::Fenced).count();
    assert_eq!(fenced, 1, "only what was taken away is refused");
}

#[tokio::test]
async fn results_above_the_limit_of_a_batch_are_split_and_each_gets_its_verdict_on_sqlite() {
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("saga.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let take = format!("UPDATE saga_heads SET lease_epoch = 2 WHERE business_id = 'C-{}'", SAGAS - 1);
    let take_away = async || {
        sqlx::raw_sql(sqlx::AssertSqlSafe(take)).execute(&pool).await.unwrap();
    };
    split(SqliteStore::new(pool.clone()).await.unwrap(), take_away).await;
}

#[tokio::test]
async fn results_above_the_limit_of_a_batch_are_split_and_each_gets_its_verdict_on_postgres() {
    let database = testkit::Postgres::shared().database();
    let pool = sqlx::PgPool::connect(database.url()).await.unwrap();
    let take = format!("UPDATE saga_heads SET lease_epoch = 2 WHERE business_id = 'C-{}'", SAGAS - 1);
    let take_away = async || {
        sqlx::raw_sql(sqlx::AssertSqlSafe(take)).execute(&pool).await.unwrap();
    };
    split(PostgresStore::new(pool.clone()).await.unwrap(), take_away).await;
}
