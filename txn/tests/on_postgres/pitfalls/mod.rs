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
pub(super) async fn until_somebody_waits(pool: &PgPool) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while find(pool, waiting).await == 0 {
        assert!(tokio::time::Instant::now() < limit, "nobody waits for a lock");
        tokio::task::yield_now().await;
    }
}

/// The numbers behind `mark` in the text, in order.
fn numbers(text: &str, mark: &str) -> Vec<u32> {
    let found = text.split(mark).skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..digits].parse().ok()
    });
    let mut numbers: Vec<u32> = found.collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_chapter_marks_exactly_the_pitfalls_that_are_tested() {
    let chapter = include_str!("../../../docs/07-pitfalls.md");
    let marked: String = chapter.lines().filter(|line| line.contains('▶')).collect::<Vec<_>>().join("\n");
    let tests = [
        include_str!("failing.rs"),
        include_str!("network.rs"),
        include_str!("reading.rs"),
        include_str!("waiting.rs"),
    ];
    let tested = numbers(&tests.concat(), "fn pitfall_");
    assert_eq!(numbers(&marked, "**"), tested);
    assert!(tested.len() >= 12, "{tested:?}");
}
