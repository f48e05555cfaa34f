//! SQLite keeps the contract.
#![cfg(all(feature = "testing", feature = "sqlite"))]
#![cfg_attr(
    all(feature = "testing", feature = "sqlite"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::SqliteStore;
use probity_idempotency::testing::Subject;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

async fn subject() -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap();
    Subject::new(Arc::new(SqliteStore::new(pool).await.unwrap())).keep(folder)
}

// proves: I-1
probity_idempotency::store_contract!(subject);
