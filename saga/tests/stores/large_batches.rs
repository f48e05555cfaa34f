//! Results too large for one batch: they are split, and each gets its own verdict.
#![cfg(all(feature = "sqlite", feature = "postgres", feature = "testing"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::store::{Record, SagaStore, Verdict};
use probity_saga::testing::{Answered, Call, FaultyStore};
use probity_saga::{
    Evidence, Executed, Orchestrator, Outcome, PostgresStore, Saga, SagaStep, SqliteStore, StepContext,
    StepError,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Semaphore;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;

/// Nearly as many bytes as an output may have.
const LARGE: usize = 900 * 1024;

const SAGAS: usize = 24;

/// The weight of each batch of results, and its verdicts.
type Weighed = Arc<Mutex<Vec<(usize, Vec<Verdict>)>>>;

/// Weighs each batch of results of this store, and lets it through when there is a permit.
fn scales(inner: impl SagaStore) -> (FaultyStore, Arc<Semaphore>, Weighed) {
    let (gate, weighed) = (Arc::new(Semaphore::new(0)), Weighed::default());
    let (store, permits, log) = (FaultyStore::new(Arc::new(inner)), gate.clone(), weighed.clone());
    store.hook(move |seen| {
        if let Some(Answered::Apply(verdicts)) = seen.answer {
            log.lock().unwrap().push((seen.records.iter().map(weight).sum(), verdicts.to_vec()));
        }
        let held = (seen.call == Call::Apply && seen.answer.is_none()).then(|| permits.clone());
        async move {
            if let Some(gate) = held {
                gate.acquire().await.unwrap().forget();
            }
            Ok(())
        }
    });
    (store, gate, weighed)
}

fn weight(record: &Record) -> usize {
    let outputs = record.change.steps.iter().filter_map(|step| step.output.as_ref());
    outputs.map(|output| output.as_json().len()).sum()
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

/// While the first result is being written all the others are handed in. One saga is taken away in that time.
async fn split(store: impl SagaStore, take_away: impl AsyncFnOnce()) {
    testkit::time_limit();
    let (store, gate, weighed) = scales(store);
    let scanned = Arc::new(AtomicUsize::new(0));
    let saga = Saga::named("claim").step(Scan(Arc::clone(&scanned))).build().unwrap();
    let builder = Orchestrator::new(store).register(saga);
    // No caller looks for the saga that was taken away.
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
    gate.add_permits(SAGAS);
    for started in &started[..SAGAS - 1] {
        let outcome = timeout(Duration::from_secs(60), orchestrator.wait(started)).await;
        assert_eq!(outcome.unwrap().unwrap(), Outcome::Completed);
    }
    let written = async {
        while weighed.lock().unwrap().iter().map(|(_, verdicts)| verdicts.len()).sum::<usize>() < SAGAS {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();

    let weighed = weighed.lock().unwrap();
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
