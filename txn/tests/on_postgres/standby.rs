//! Servers that take no writes: a hot standby, and sessions that are read-only by default. Also servers that have
//! replaced another one.

use std::sync::atomic::{AtomicU32, Ordering};

use probity_txn::{Class, Effect, Error, Isolation, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::Cut;

use super::both::patient;
use super::lost::{a_proxy, count, create_counter, host};
use super::worn::fill;

const ADD: &str = "UPDATE counter SET n = n + 1";
const READ: &str = "SELECT n FROM counter";

async fn prepare(url: &str) -> PgPool {
    let pool = PgPool::connect(url).await.unwrap();
    create_counter(&pool).await;
    pool
}

/// Returns once the standby knows what the primary has committed.
async fn until_replicated(primary: &PgPool, standby: &PgPool) {
    let written: String =
        sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(primary).await.unwrap();
    let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn";
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while !sqlx::query_scalar::<_, bool>(replayed).bind(&written).fetch_one(standby).await.unwrap() {
        assert!(tokio::time::Instant::now() < limit, "the standby follows");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_standby_serves_runs_that_only_read_and_refuses_the_others_before_they_begin() {
    let primary = testkit::Postgres::start();
    let standby = primary.standby();
    let (writer, reader) = (prepare(primary.url()).await, PgPool::connect(standby.url()).await.unwrap());
    until_replicated(&writer, &reader).await;
    for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead] {
        let report = on(&reader, "report").policy(patient()).isolation(isolation).read_only();
        let n: i64 = report.run(async |tx| sqlx::query_scalar(READ).fetch_one(&mut *tx).await).await.unwrap();
        assert_eq!(n, 0);
    }
    let calls = AtomicU32::new(0);
    for token in [false, true] {
        let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
            calls.fetch_add(1, Ordering::SeqCst);
            sqlx::query(ADD).execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(())
        };
        let run = on(&reader, "add").attempts(3);
        let outcome = if token { run.once("T").run(body).await } else { run.run(body).await };
        let error = outcome.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("let the pool lead to the primary") && text.contains(&host(standby.url())),
            "{text}"
        );
        if let Error::Conflict { attempts, last } = &error {
            assert_eq!((*attempts, last.class(), token), (3, Class::ReadOnly, false));
            assert_eq!(error.effect(), Effect::NotApplied);
        } else {
            // Another run may have committed with the token, on the primary.
            assert!(matches!(error, Error::Unsettled { .. }) && token, "{error:?}");
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "no closure began what it could not have finished");
    // The next borrower does not get a session that refused a write.
    let n: i64 = sqlx::query_scalar(READ).fetch_one(&reader).await.unwrap();
    assert_eq!(n, 0);
}

#[tokio::test]
async fn after_a_failover_the_sessions_of_the_old_server_are_replaced_within_one_attempt() {
    let primary = testkit::Postgres::start();
    let standby = primary.standby();
    let writer = prepare(primary.url()).await;
    // The service's name for the database now leads to the standby.
    let proxy = a_proxy(standby.url()).await;
    let url = proxy.url(standby.url());
    let pool = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    fill(&pool, 4).await;
    proxy.redirect(primary.url());
    for run in 1..=4 {
        // The first and each second one in the mode that a standby refuses before it could say that it takes no writes.
        let isolation = if run % 2 == 1 { Isolation::Serializable } else { Isolation::ReadCommitted };
        let add = on(&pool, "add").attempts(1).isolation(isolation);
        if run == 1 {
            add.run(async |tx| sqlx::query(ADD).execute(&mut *tx).await).await.unwrap();
        } else {
            let add = add.once(format!("request {run}"));
            add.run(async |tx| sqlx::query(ADD).execute(&mut *tx).await.map(drop)).await.unwrap();
        }
    }
    let n: i64 = sqlx::query_scalar(READ).fetch_one(&writer).await.unwrap();
    assert_eq!(n, 4);
}

/// Loses a COMMIT on the way to `primary`, and leads the look-up to `successor`, which is made ready in between.
async fn lost_before_a_failover(
    primary: &testkit::Postgres,
    successor: &testkit::Postgres,
    ready: impl AsyncFnOnce(&PgPool),
) -> Result<i64, Error<sqlx::Error>> {
    let proxy = a_proxy(primary.url()).await;
    // The pool has one connection, so that none to the primary is left.
    let pool = PgPoolOptions::new().max_connections(1).connect(&proxy.url(primary.url())).await.unwrap();
    create_counter(&pool).await;
    let mut paused = proxy.pause_next([Cut::BeforeTheServer]);
    let failover = async {
        let go_on = paused.recv().await.unwrap();
        ready(&PgPool::connect(successor.url()).await.unwrap()).await;
        proxy.redirect(successor.url());
        drop(go_on);
    };
    // Without the guards the look-up would say that the COMMIT did not happen, and the closure would run again.
    tokio::join!(on(&pool, "count").policy(patient()).run(async |tx| count(tx).await), failover).0
}

#[tokio::test]
async fn a_promoted_standby_does_not_settle_a_lost_commit_of_its_primary() {
    // proves: T-2
    let primary = testkit::Postgres::start();
    let standby = primary.standby();
    let promote = async |standby: &PgPool| {
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(standby).await.unwrap();
        assert!(promoted);
    };
    let outcome = lost_before_a_failover(&primary, &standby, promote).await;
    assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
}

#[tokio::test]
async fn another_server_does_not_settle_a_lost_commit() {
    // proves: T-2
    let (first, other) = (testkit::Postgres::start(), testkit::Postgres::start());
    // The other server has not given out the number of the lost transaction yet.
    let first_pool = PgPool::connect(first.url()).await.unwrap();
    let count_up = "DO $$ BEGIN FOR i IN 1..100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    sqlx::raw_sql(count_up).execute(&first_pool).await.unwrap();
    let outcome = lost_before_a_failover(&first, &other, async |other| create_counter(other).await).await;
    assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
}

#[tokio::test]
async fn sessions_that_are_read_only_by_default_are_replaced_once_the_default_has_changed() {
    let database = testkit::Postgres::shared().database();
    let admin = prepare(database.url()).await;
    let default = async |value: &str| {
        let set = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {value}', current_database()); END $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&admin).await.unwrap();
    };
    default("on").await;
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    fill(&pool, 3).await;
    let calls = AtomicU32::new(0);
    let refused = on(&pool, "add")
        .attempts(2)
        .run(async |tx| {
            calls.fetch_add(1, Ordering::SeqCst);
            sqlx::query(ADD).execute(&mut *tx).await
        })
        .await;
    let Err(Error::Conflict { last, .. }) = &refused else { panic!("{refused:?}") };
    assert_eq!((last.class(), last.code(), calls.into_inner()), (Class::ReadOnly, Some("25006"), 0));
    let read = on(&pool, "read").read_only();
    read.run(async |tx| sqlx::query(READ).execute(&mut *tx).await).await.unwrap();

    fill(&pool, 3).await;
    default("off").await;
    on(&pool, "add").attempts(1).run(async |tx| sqlx::query(ADD).execute(&mut *tx).await).await.unwrap();
    let n: i64 = sqlx::query_scalar(READ).fetch_one(&admin).await.unwrap();
    assert_eq!(n, 1);
}

#[tokio::test]
async fn a_run_that_declared_to_only_read_and_writes_is_not_tried_again() {
    let database = testkit::Postgres::shared().database();
    let pool = prepare(database.url()).await;
    let calls = AtomicU32::new(0);
    let refused = on(&pool, "report")
        .read_only()
        .run(async |tx| {
            calls.fetch_add(1, Ordering::SeqCst);
            sqlx::query(ADD).execute(&mut *tx).await
        })
        .await;
    assert!(matches!(refused, Err(Error::App(sqlx::Error::Database(_)))), "{refused:?}");
    assert_eq!(calls.into_inner(), 1);
}
