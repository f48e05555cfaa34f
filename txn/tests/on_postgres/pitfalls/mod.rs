//! The chapter "Transaction pitfalls", run: the damage with naive code, then its absence.
//!
//! The naive side uses sqlx alone, two connections, and the interleaving of the chapter, written down
//! statement by statement.

use sqlx::postgres::PgQueryResult;
use sqlx::{PgPool, Postgres, Transaction, query, query_scalar};

use super::Bank;
use super::both::lock::Account;

mod failing;
mod network;
mod reading;
mod waiting;

async fn begin<'p>(pool: &'p PgPool) -> Transaction<'p, Postgres> {
    pool.begin().await.unwrap()
}

async fn say(tx: &mut Transaction<'_, Postgres>, sql: &'static str) -> Result<PgQueryResult, sqlx::Error> {
    query(sql).execute(&mut **tx).await
}

async fn ask(tx: &mut Transaction<'_, Postgres>, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(&mut **tx).await.unwrap()
}

async fn find(pool: &PgPool, sql: &'static str) -> i64 {
    query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Returns once a statement in this database waits for a lock.
async fn until_somebody_waits(pool: &PgPool) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while find(pool, waiting).await == 0 {
        tokio::task::yield_now().await;
    }
}
