//! A statement through the handle allocates no more often than the same statement through sqlx alone. With
//! one exception: `fetch_optional` is a box in sqlx already, and what looks at its answer is a second one.
//!
//! Alone in its binary, because it counts the allocations of the whole process.
#![cfg(feature = "postgres")]

use std::alloc::System;

use probity_txn::on;
use sqlx::postgres::PgPoolOptions;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const STATEMENTS: usize = 100;

/// Allocations per statement, after the first ones that fill caches and buffers.
macro_rules! allocations {
    ($connection:expr, $method:ident) => {{
        let mut before = None;
        for number in 0..2 * STATEMENTS {
            if number == STATEMENTS {
                before = Some(Region::new(ALLOCATOR));
            }
            sqlx::query("SELECT balance FROM accounts WHERE id = $1")
                .bind(7_i64)
                .$method($connection)
                .await?;
        }
        Ok::<_, sqlx::Error>(before.map_or(0, |region| region.change().allocations / STATEMENTS))
    }};
}

#[tokio::test]
async fn a_statement_allocates_no_more_than_sqlx_does() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT); INSERT INTO accounts VALUES (7, 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    /// The same method, through sqlx and through the handle.
    macro_rules! compare {
        ($($method:ident + $boxes:literal)*) => {$({
            let raw = async {
                let mut tx = pool.begin().await?;
                allocations!(&mut *tx, $method)
            };
            let raw = raw.await.unwrap();
            let own = on(&pool, "count").run(async |tx| allocations!(&mut *tx, $method)).await.unwrap();
            assert!(own <= raw + $boxes, "{}: {own} allocations instead of {raw}", stringify!($method));
            assert!(raw > 0, "the counter counts");
        })*};
    }
    compare!(execute + 0 fetch_one + 0 fetch_all + 0 fetch_optional + 1);
}
