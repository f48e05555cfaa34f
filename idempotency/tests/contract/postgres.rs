//! PostgreSQL keeps the contract, whether concurrent calls share statements or not.
#![cfg(all(feature = "testing", feature = "postgres"))]
#![cfg_attr(
    all(feature = "testing", feature = "postgres"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::testing::{Subject, clause};
use probity_idempotency::{IdempotencyManager, PostgresStore};
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

#[tokio::test]
async fn fences_rise_on_a_clock_that_stands_still_and_steps_back() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    let clock = "CREATE TABLE test_clock (now BIGINT NOT NULL); INSERT INTO test_clock VALUES (0)";
    sqlx::raw_sql(clock).execute(&pool).await.unwrap();
    let builder = PostgresStore::builder(pool.clone()).clock("(SELECT now FROM test_clock)");
    let store = builder.build().await.unwrap();
    for store in [Arc::new(store.clone()) as Arc<dyn IdempotencyManager>, Arc::new(store.direct())] {
        let pool = pool.clone();
        let subject = Subject::new(store).clock(move |time| {
            let (pool, now) = (pool.clone(), i64::try_from(time.as_micros()).unwrap());
            async move {
                sqlx::query("UPDATE test_clock SET now = $1").bind(now).execute(&pool).await.unwrap();
            }
        });
        clause("no_fence_is_given_twice_under_any_clock").check(&subject).await.unwrap();
    }
}
