//! PostgreSQL keeps the contract, whether concurrent calls share statements or not.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![cfg_attr(
    all(feature = "testing", feature = "postgres"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::PostgresStore;
use probity_idempotency::testing::Subject;
use sqlx::postgres::PgPoolOptions;
use testkit::TestDatabase;

async fn store() -> (PostgresStore, TestDatabase) {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    (PostgresStore::new(pool).await.unwrap(), database)
}

/// Concurrent calls share statements.
mod shared {
    use super::*;

    async fn subject() -> Subject {
        let (store, database) = store().await;
        Subject::new(Arc::new(store)).keep(database)
    }

    // proves: I-1
    probity_idempotency::store_contract!(subject);
}

/// Each call is a statement of its own.
mod direct {
    use super::*;

    async fn subject() -> Subject {
        let (store, database) = store().await;
        Subject::new(Arc::new(store.direct())).keep(database)
    }

    // proves: I-1
    probity_idempotency::store_contract!(subject);
}
