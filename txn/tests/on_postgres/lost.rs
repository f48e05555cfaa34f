//! COMMITs whose answer never comes: lost before the server, or behind it, with and without a token. Two
//! hundred of them in a restart of the server: `restarted.rs`.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Effect, Error, Misuse, Policy, RollbackReason, create_token_table, on};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::{Cut, PostgresProxy};

use super::pitfalls::until_somebody_waits;

/// The number of times that each break is tried.
const RUNS: i64 = 200;

/// A proxy that knows the COMMIT of a run, which asks for the transaction id in the same message.
pub(super) async fn a_proxy(url: &str) -> PostgresProxy {
    PostgresProxy::before_commits_like(url, "; COMMIT").await
}

/// A pool whose wire can be cut, on a database with one counter.
pub(super) async fn behind(proxy: &PostgresProxy, url: &str) -> PgPool {
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(60))
        .connect(&proxy.url(url))
        .await
        .unwrap();
    create_counter(&pool).await;
    pool
}

/// Creates a table with one counter, and the table of tokens.
pub(super) async fn create_counter(pool: &PgPool) {
    sqlx::raw_sql("CREATE TABLE counter (n BIGINT NOT NULL); INSERT INTO counter VALUES (0)")
        .execute(pool)
        .await
        .unwrap();
    create_token_table(pool).await.unwrap();
}

/// `host:port` of a URL.
pub(super) fn host(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap().to_owned()
}

pub(super) async fn count(tx: &mut probity_txn::Tx<'_, sqlx::Postgres>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("UPDATE counter SET n = n + 1 RETURNING n").fetch_one(&mut *tx).await
}

async fn counted(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT n FROM counter").fetch_one(pool).await.unwrap()
}

/// Moves the clock of this thread, and nothing else, on.
pub(super) async fn let_pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// One run, with a token or without.
async fn run(pool: &PgPool, token: Option<String>) -> Result<i64, Error<sqlx::Error>> {
    let transaction = on(pool, "count").policy(Policy {
        deadline: Duration::from_secs(60),
        commit_timeout: Duration::from_secs(60),
        ..Policy::payments()
    });
    match token {
        Some(token) => transaction.once(token).run(async |tx| count(tx).await).await,
        None => transaction.run(async |tx| count(tx).await).await,
    }
}

async fn cut_many_times(cut: Cut, with_token: bool) {
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    for round in 1..=RUNS {
        proxy.cut_next(cut);
        let outcome = run(&pool, with_token.then(|| format!("round {round}"))).await;
        assert_eq!(outcome.unwrap(), round, "{cut:?}");
        if with_token {
            let again = run(&pool, Some(format!("round {round}"))).await;
            assert_eq!(again.unwrap(), round, "the result is kept");
        }
    }
    assert_eq!(counted(&pool).await, RUNS);
}

#[tokio::test]
async fn a_lost_commit_is_looked_up_under_an_unlimited_timeout() {
    // proves: T-2
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    let policy = Policy { commit_timeout: Duration::MAX, ..Policy::payments() };
    proxy.cut_next(Cut::BeforeTheAnswer);
    let plain = on(&pool, "count").policy(policy.clone()).run(async |tx| count(tx).await).await;
    assert_eq!(plain.unwrap(), 1);
    proxy.cut_next(Cut::BeforeTheAnswer);
    let with_token = on(&pool, "count").policy(policy).once("endless").run(async |tx| count(tx).await).await;
    assert_eq!(with_token.unwrap(), 2);
    assert_eq!(counted(&pool).await, 2);
}

#[tokio::test]
async fn a_commit_that_never_reached_the_server_is_run_again_once() {
    // proves: T-2
    cut_many_times(Cut::BeforeTheServer, false).await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_recognised() {
    // proves: T-2
    cut_many_times(Cut::BeforeTheAnswer, false).await;
}

#[tokio::test]
async fn with_a_token_a_commit_that_never_reached_the_server_is_run_again_once() {
    // proves: T-6
    cut_many_times(Cut::BeforeTheServer, true).await;
}

#[tokio::test]
async fn with_a_token_a_commit_whose_answer_was_lost_gives_its_result() {
    // proves: T-6
    cut_many_times(Cut::BeforeTheAnswer, true).await;
}

#[tokio::test]
async fn a_lost_commit_of_a_run_that_only_reads_leaves_nothing_open_and_is_run_again() {
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    proxy.cut_next(Cut::BeforeTheAnswer);
    let read = on(&pool, "report").read_only().run(async |tx| {
        let n: i64 = sqlx::query_scalar("SELECT n FROM counter").fetch_one(&mut *tx).await?;
        Ok::<_, sqlx::Error>((tx.attempt(), n))
    });
    assert_eq!(read.await.unwrap(), (2, 0));
}

/// The way in which the server goes down while a COMMIT is under way.
#[derive(Clone, Copy)]
enum Down {
    Cleanly,
    Crashing,
}

/// Takes the server down at `cut`, brings it back, and then breaks the connection.
async fn across_a_restart(cut: Cut, down: Down, with_token: bool) -> (Result<i64, Error<sqlx::Error>>, i64) {
    let mut server = testkit::Postgres::start();
    let url = server.url().to_owned();
    let proxy = a_proxy(&url).await;
    let pool = behind(&proxy, &url).await;
    let mut paused = proxy.pause_next([cut]);
    let restart = async move {
        let go_on = paused.recv().await.unwrap();
        tokio::task::spawn_blocking(move || {
            match down {
                Down::Cleanly => server.stop(),
                Down::Crashing => server.kill9(),
            }
            server.restart();
            server
        })
        .await
        .inspect(|_server| drop(go_on))
        .unwrap()
    };
    let (outcome, _server) = tokio::join!(run(&pool, with_token.then(|| "T".to_owned())), restart);
    (outcome, counted(&pool).await)
}

#[tokio::test]
async fn a_commit_answered_into_a_clean_restart_is_recognised() {
    // proves: T-2
    let (outcome, counted) = across_a_restart(Cut::BeforeTheAnswer, Down::Cleanly, false).await;
    assert_eq!((outcome.unwrap(), counted), (1, 1));
}

#[tokio::test]
async fn a_commit_answered_into_a_crash_is_unknown_without_a_token() {
    let (outcome, counted) = across_a_restart(Cut::BeforeTheAnswer, Down::Crashing, false).await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn a_commit_answered_into_a_crash_gives_its_result_with_a_token() {
    // proves: T-6
    let (outcome, counted) = across_a_restart(Cut::BeforeTheAnswer, Down::Crashing, true).await;
    assert_eq!((outcome.unwrap(), counted), (1, 1));
}

#[tokio::test]
async fn a_commit_lost_in_a_crash_is_run_again_once() {
    // proves: T-2
    // proves: T-6
    for with_token in [false, true] {
        let (outcome, counted) = across_a_restart(Cut::BeforeTheServer, Down::Crashing, with_token).await;
        assert_eq!((outcome.unwrap(), counted), (1, 1));
    }
}

#[tokio::test]
async fn hooks_run_after_a_commit_that_had_to_be_looked_up() {
    // proves: T-8
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    let ran = std::sync::Arc::new(AtomicU32::new(0));
    for token in [None, Some("T")] {
        proxy.cut_next(Cut::BeforeTheAnswer);
        let transaction = on(&pool, "count");
        let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
            let ran = ran.clone();
            tx.after_commit(async move {
                ran.fetch_add(1, Ordering::SeqCst);
            });
            count(tx).await
        };
        match token {
            Some(token) => transaction.once(token).run(body).await.unwrap(),
            None => transaction.run(body).await.unwrap(),
        };
    }
    assert_eq!(ran.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn hooks_do_not_run_for_the_commit_of_another_operation_with_the_same_token() {
    // proves: T-8
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let (pool, direct) =
        (behind(&proxy, database.url()).await, PgPool::connect(database.url()).await.unwrap());
    let ran = std::sync::Arc::new(AtomicU32::new(0));
    let mut pauses = proxy.pause_next([Cut::BeforeTheServer]);
    let first = on(&pool, "count").once("T").run(async |tx| {
        let ran = ran.clone();
        tx.after_commit(async move {
            ran.fetch_add(1, Ordering::SeqCst);
        });
        count(tx).await
    });
    let second = async {
        let broken = pauses.recv().await.unwrap();
        let other = on(&direct, "other").once("T").run(async |_tx| Ok::<_, sqlx::Error>(7_i64));
        let lost = async {
            until_somebody_waits(&direct).await;
            drop(broken);
        };
        tokio::join!(other, lost).0
    };
    let (first, second) = tokio::join!(first, second);
    // When the server sees the break, the other run gets the token, unless the first one is back before it.
    match (&first, &second) {
        (Err(Error::Misuse(Misuse::TokenReused { .. })), Ok(7)) => assert_eq!(ran.load(Ordering::SeqCst), 0),
        (Ok(_), Err(Error::Misuse(Misuse::TokenReused { .. }))) => assert_eq!(ran.load(Ordering::SeqCst), 1),
        _ => panic!("{first:?}, {second:?}"),
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_before_it_begins_is_replaced() {
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&proxy.url(database.url())).unwrap();
    proxy.refuse_next(2);
    let one = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
        sqlx::query_scalar("SELECT 1").fetch_one(&mut *tx).await
    };
    let one: Result<i32, Error<sqlx::Error>> = on(&pool, "one").run(one).await;
    assert_eq!(one.unwrap(), 1);
}

#[tokio::test]
async fn a_commit_that_would_be_answered_by_a_rollback_is_not_ok() {
    // proves: T-2
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    proxy.cut_next(Cut::AbortedBefore);
    let outcome = on(&pool, "count").run(async |tx| count(tx).await).await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::CommitRefused(_)))), "{outcome:?}");
    assert_eq!(counted(&pool).await, 0);
}

#[tokio::test]
async fn a_connection_whose_rollback_failed_is_closed() {
    // proves: T-5
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    // The first may be the answer to another statement, so it is tried once more.
    proxy.garble_next_rollbacks(2);
    let session = AtomicI32::new(0);
    let refused = on(&pool, "refused")
        .run(async |tx| {
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            session.store(pid, Ordering::Relaxed);
            Err::<(), _>(sqlx::Error::RowNotFound)
        })
        .await;
    assert!(matches!(refused, Err(Error::App(sqlx::Error::RowNotFound))), "{refused:?}");
    // This takes all connections of the pool: none of them is that session.
    let mut borrowed = Vec::new();
    for _ in 0..4 {
        let mut connection = pool.acquire().await.unwrap();
        let pid: i32 =
            sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
        assert_ne!(pid, session.load(Ordering::Relaxed), "its transaction was never rolled back");
        borrowed.push(connection);
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_in_time_ends_with_the_deadline() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPoolOptions::new().max_connections(2).connect(database.url()).await.unwrap();
    create_token_table(&pool).await.unwrap();
    sqlx::raw_sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE UPDATE ON probity_txn_tokens FOR EACH ROW EXECUTE FUNCTION wait()",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *holder).await.unwrap();
    let deadline = Duration::from_secs(600);
    let policy = Policy { deadline, lock_timeout: None, statement_timeout: None, ..Policy::payments() };
    let run = on(&pool, "slow").policy(policy).once("T").run(async |_tx| Ok::<_, sqlx::Error>(1));
    let observer = PgPool::connect(database.url()).await.unwrap();
    let passes = async {
        until_somebody_waits(&observer).await;
        let_pass(deadline).await;
    };
    let (outcome, ()) = tokio::join!(run, passes);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Deadline { attempts: 1, .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::NotApplied);
    holder.rollback().await.unwrap();
    let stored: i64 =
        sqlx::query_scalar("SELECT count(*) FROM probity_txn_tokens").fetch_one(&pool).await.unwrap();
    assert_eq!(stored, 0);
}
