//! PostgreSQL keeps the contract.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![cfg_attr(
    all(feature = "testing", feature = "postgres"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::PostgresStore;
use probity_idempotency::testing::Subject;
use sqlx::postgres::PgPoolOptions;

async fn subject() -> Subject {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    Subject::new(Arc::new(PostgresStore::new(pool).await.unwrap())).keep(database)
}

// proves: I-1
probity_idempotency::store_contract!(subject);
