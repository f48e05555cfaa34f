//! Unusable connections: dead ones in a pool that does not test them, and those with a stale plan.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Error, create_token_table, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::Cut;

use super::both::metrics::Journal;
use super::lost::{a_proxy, behind, count};

/// The number of connections that lie in the pool.
pub(super) async fn fill(pool: &PgPool, connections: usize) {
    let mut borrowed = Vec::new();
    for _ in 0..connections {
        borrowed.push(pool.acquire().await.unwrap());
    }
    drop(borrowed);
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while pool.num_idle() < connections {
        assert!(tokio::time::Instant::now() < limit, "connections come back to the pool");
        tokio::task::yield_now().await;
    }
}

/// Ends all sessions of the database but the observer's own and `spared`; how many that were.
async fn end_sessions(observer: &PgPool, spared: i32) -> i64 {
    let end = "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), $1)";
    sqlx::query_scalar(end).bind(spared).fetch_one(observer).await.unwrap()
}

/// A pool that does not ask its connections whether they live.
fn untested(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).test_before_acquire(false)
}

#[tokio::test]
async fn dead_connections_of_an_untested_pool_do_not_count_as_attempts() {
    let database = testkit::Postgres::shared().database();
    let pool = untested(3).connect(database.url()).await.unwrap();
    fill(&pool, 3).await;
    let observer = PgPool::connect(database.url()).await.unwrap();
    assert_eq!(end_sessions(&observer, 0).await, 3);
    let one = on(&pool, "one")
        .attempts(1)
        .run(async |tx| sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(&mut *tx).await)
        .await;
    assert_eq!(one.unwrap(), 1);
}

#[tokio::test]
async fn a_new_connection_that_dies_counts_as_an_attempt() {
    let database = testkit::Postgres::shared().database();
    let made = std::sync::Arc::new(AtomicU32::new(0));
    let count = made.clone();
    let pool = untested(8)
        .after_connect(move |connection, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                let die = "SELECT pg_terminate_backend(pg_backend_pid())";
                let _ = sqlx::query(die).execute(connection).await;
                Ok(())
            })
        })
        .connect_lazy(database.url())
        .unwrap();
    let outcome = on(&pool, "one").attempts(3).run(async |_tx| Ok::<_, sqlx::Error>(())).await;
    assert!(matches!(outcome, Err(Error::Conflict { attempts: 3, .. })), "{outcome:?}");
    assert_eq!(made.load(Ordering::SeqCst), 3, "a server that is away is not flooded");
}

#[tokio::test]
async fn the_look_up_of_a_lost_commit_skips_dead_connections_of_an_untested_pool() {
    // proves: T-2
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    behind(&proxy, database.url()).await.close().await;
    let url = proxy.url(database.url());
    let pool = untested(6).connect(&url).await.unwrap();
    let observer = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let (journal, _listening) = Journal::listen();
    fill(&pool, 6).await;
    let counted = on(&pool, "count")
        .attempts(1)
        .run(async |tx| {
            let own: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            assert_eq!(end_sessions(&observer, own).await, 5);
            proxy.cut_next(Cut::BeforeTheAnswer);
            count(tx).await
        })
        .await;
    assert_eq!(counted.unwrap(), 1);
    assert!(journal.has(&["COMMIT got no answer that settles its outcome"]), "the commit was looked up");
    assert!(
        !journal.has(&["the run cannot look up a lost COMMIT yet"]),
        "without a pause for each dead connection"
    );
}

#[tokio::test]
async fn stale_plans_after_a_migration_of_the_token_table_do_not_count_as_attempts() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    create_token_table(&pool).await.unwrap();
    let run = |value: i64| {
        let pay = on(&pool, "pay").attempts(1).once("T");
        pay.run(async move |_tx| Ok::<_, sqlx::Error>(value))
    };
    assert_eq!(run(1).await.unwrap(), 1);
    // The text is that of a run, so each connection now has the plan by which a run reads the token.
    let mut connections = Vec::new();
    for _ in 0..3 {
        let mut connection = pool.acquire().await.unwrap();
        let read = "SELECT label, result, tableoid::bigint FROM \"probity_txn_tokens\" WHERE token = $1";
        sqlx::query(read).bind("T").execute(&mut *connection).await.unwrap();
        connections.push(connection);
    }
    drop(connections);
    // This makes the plan stale.
    let migration = PgPool::connect(database.url()).await.unwrap();
    sqlx::raw_sql("ALTER TABLE probity_txn_tokens ALTER COLUMN label TYPE VARCHAR(64)")
        .execute(&migration)
        .await
        .unwrap();
    assert_eq!(run(3).await.unwrap(), 1);
}
