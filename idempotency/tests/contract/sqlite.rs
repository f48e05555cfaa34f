//! SQLite keeps the contract.
#![cfg(all(feature = "testing", feature = "sqlite"))]
#![cfg_attr(
    all(feature = "testing", feature = "sqlite"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::SqliteStore;
use probity_idempotency::testing::{Subject, clause};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

async fn database() -> (SqlitePool, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    (pool, folder)
}

async fn subject() -> Subject {
    let (pool, folder) = database().await;
    Subject::new(Arc::new(SqliteStore::new(pool).await.unwrap())).keep(folder)
}

// proves: I-1
probity_idempotency::store_contract!(subject);

#[tokio::test]
async fn fences_rise_on_a_clock_that_stands_still_and_steps_back() {
    let (pool, _folder) = database().await;
    let clock = "CREATE TABLE test_clock (now INTEGER NOT NULL); INSERT INTO test_clock VALUES (0)";
    sqlx::raw_sql(clock).execute(&pool).await.unwrap();
    let store =
        SqliteStore::builder(pool.clone()).clock("(SELECT now FROM test_clock)").build().await.unwrap();
    let subject = Subject::new(Arc::new(store)).clock(move |time| {
        let (pool, now) = (pool.clone(), i64::try_from(time.as_micros()).unwrap());
        async move {
            sqlx::query("UPDATE test_clock SET now = $1").bind(now).execute(&pool).await.unwrap();
        }
    });
    clause("no_fence_is_given_twice_under_any_clock").check(&subject).await.unwrap();
}
