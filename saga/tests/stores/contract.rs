//! Every store keeps the contract.
#![cfg(feature = "testing")]

mod memory {
    async fn store() -> (probity_saga::MemoryStore, ()) {
        (probity_saga::MemoryStore::new(), ())
    }
    // proves: S-1, S-6, S-10, S-11
    probity_saga::store_contract!(store);
}

#[cfg(feature = "sqlite")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod sqlite {
    use std::time::Duration;

    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

    async fn store() -> (probity_saga::SqliteStore, impl Sized) {
        testkit::time_limit();
        let folder = testkit::temp_dir();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("saga.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        (probity_saga::SqliteStore::new(pool).await.unwrap(), folder)
    }
    // proves: S-1, S-6, S-10, S-11
    probity_saga::store_contract!(store);
}

#[cfg(feature = "postgres")]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod postgres {
    async fn store() -> (probity_saga::PostgresStore, impl Sized) {
        testkit::time_limit();
        let database = testkit::Postgres::shared().database();
        let pool = sqlx::PgPool::connect(database.url()).await.unwrap();
        (probity_saga::PostgresStore::new(pool).await.unwrap(), database)
    }
    // proves: S-1, S-6, S-10, S-11
    probity_saga::store_contract!(store);
}
