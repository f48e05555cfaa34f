//! SQLite: a full disk, a row that the database refuses, and sagas that are old enough.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::handmade::{first_step, new_saga};
use probity_saga::store::{Record, SagaStore, Verdict, WorkerId};
use probity_saga::{
    Effect, Evidence, Executed, Orchestrator, Outcome, Saga, SagaStep, SqliteStore, StepContext, StepError,
};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::{Notify, Semaphore};

#[derive(Default)]
struct Channel {
    charges: AtomicU32,
    reached: Notify,
    answers: Option<Semaphore>,
}

struct Charge(Arc<Channel>);

impl SagaStep for Charge {
    type Input = u32;
    type Output = String;
    const NAME: &'static str = "Charge";

    async fn execute(&self, _: &StepContext<u32>) -> Result<String, StepError> {
        self.0.charges.fetch_add(1, Ordering::SeqCst);
        self.0.reached.notify_one();
        if let Some(answers) = &self.0.answers {
            answers.acquire().await?.forget();
        }
        // More than the free space of a page.
        Ok("x".repeat(8192))
    }

    async fn compensate(&self, _: &StepContext<u32>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

/// A database that may have `pages` pages.
async fn pool(folder: &std::path::Path, pages: &'static str) -> SqlitePool {
    testkit::time_limit();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("saga.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .pragma("max_page_count", pages);
    SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
}

async fn worker(store: SqliteStore, channel: &Arc<Channel>) -> Orchestrator {
    let saga = Saga::named("payment").step(Charge(Arc::clone(channel))).build().unwrap();
    Orchestrator::new(store).register(saga).start().await.unwrap()
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_refuses_new_sagas_until_there_is_room() {
    let folder = testkit::temp_dir();
    let pool = pool(folder.path(), "200").await;
    let channel = Arc::new(Channel { answers: Some(Semaphore::new(0)), ..Channel::default() });
    let orchestrator = worker(SqliteStore::new(pool.clone()).await.unwrap(), &channel).await;
    let started = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    channel.reached.notified().await;

    sqlx::query("CREATE TABLE junk (bytes BLOB)").execute(&pool).await.unwrap();
    for size in [40_000, 4_000, 400, 40, 4] {
        let fill = sqlx::query("INSERT INTO junk VALUES (zeroblob(?1))");
        let mut filled = fill.bind(size).execute(&pool).await;
        while filled.is_ok() {
            filled = sqlx::query("INSERT INTO junk VALUES (zeroblob(?1))").bind(size).execute(&pool).await;
        }
        assert!(filled.unwrap_err().to_string().contains("full"));
    }
    channel.answers.as_ref().unwrap().add_permits(100);
    let mut refused = None;
    for n in 2..1000 {
        refused = orchestrator.start("payment", &format!("PAY-{n}"), &1_u32).await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.unwrap();
    assert!(refused.to_string().contains("full"), "{refused}");
    assert_eq!(refused.effect(), Effect::NotApplied);

    sqlx::query("DROP TABLE junk").execute(&pool).await.unwrap();
    assert_eq!(orchestrator.wait(&started).await.unwrap(), Outcome::Completed);
    assert_eq!(orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap(), Outcome::Completed);
    let again = sqlx::query_scalar::<_, i64>("SELECT max(retry_count) FROM saga_steps");
    assert_eq!(again.fetch_one(&pool).await.unwrap(), 0);
}

#[tokio::test]
async fn a_row_that_the_database_refuses_costs_only_its_own_record() {
    let folder = testkit::temp_dir();
    let pool = pool(folder.path(), "100000").await;
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    let sagas = ["B-0", "B-1", "B-2"].map(|business_id| new_saga(WorkerId::generate(), business_id));
    let _ = store.insert(&sagas).await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON saga_steps WHEN NEW.step_name = 'Bad'
        BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    sqlx::raw_sql(refuse).execute(&pool).await.unwrap();
    let names = ["Good", "Bad", "Good"];
    let records: Vec<Record> =
        sagas.iter().zip(names).map(|(saga, name)| first_step(saga.id, name)).collect();
    let verdicts = store.apply(&records).await.unwrap();
    assert!(
        matches!(&verdicts[..], [Verdict::Applied(_), Verdict::Refused(why), Verdict::Applied(_)] if why.contains("not this one")),
        "{verdicts:?}"
    );
}

#[tokio::test]
async fn a_pool_that_repairs_its_settings_after_connecting_is_refused() {
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("saga.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let mend = SqlitePoolOptions::new().after_connect(|connection, _| {
        Box::pin(
            async move { sqlx::query("PRAGMA synchronous = FULL").execute(connection).await.map(|_| ()) },
        )
    });
    let pool = mend.connect_with(options).await.unwrap();
    let refused = SqliteStore::new(pool).await.unwrap_err();
    assert!(refused.to_string().contains("synchronous is below FULL"), "{refused}");
}

#[tokio::test]
async fn only_finished_sagas_that_are_old_enough_are_purged_a_batch_at_a_time() {
    let folder = testkit::temp_dir();
    let (pool, channel) = (pool(folder.path(), "100000").await, Arc::new(Channel::default()));
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    let orchestrator = worker(store.clone(), &channel).await;
    for n in 0..5 {
        let outcome = orchestrator.run("payment", &format!("PAY-{n}"), &1_u32).await.unwrap();
        assert_eq!(outcome, Outcome::Completed);
    }
    let open = new_saga(WorkerId::generate(), "B-9");
    let _ = store.insert(&[open]).await.unwrap();
    assert_eq!(store.purge(Duration::from_secs(3600), 10).await.unwrap(), 0);
    let batches =
        [store.purge(Duration::ZERO, 3).await.unwrap(), store.purge(Duration::ZERO, 3).await.unwrap()];
    assert_eq!(batches, [3, 2]);
    let left = "SELECT (SELECT count(*) FROM saga_heads), (SELECT count(*) FROM saga_steps)";
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(left).fetch_one(&pool).await.unwrap(), (1, 0));
}
