//! Abandoned statements, and sessions that idled for too long.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Class, Error, Policy, RollbackReason, on};
use sqlx::PgPool;

use super::Bank;
use super::both::patient;
use super::lost::let_pass;

const ADD: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = 'b'";
const LOCK: &str = "SELECT pg_advisory_xact_lock(7)";
/// Longer than any test lasts.
const SLEEP: &str = "SELECT pg_sleep(36000)";

async fn observer(bank: &Bank) -> PgPool {
    PgPool::connect_with((*bank.pool.connect_options()).clone()).await.unwrap()
}

/// Returns once so many sessions of this database answer to `condition`.
async fn until(observer: &PgPool, condition: &str, sessions: i64) {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
         AND pid <> pg_backend_pid() AND {condition}"
    );
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count.clone())).fetch_one(observer).await.unwrap()
        != sessions
    {
        assert!(tokio::time::Instant::now() < limit, "{condition}");
        tokio::task::yield_now().await;
    }
}

async fn pid(bank: &Bank) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&bank.pool).await.unwrap()
}

#[tokio::test]
async fn a_dropped_run_cancels_its_statement_and_gives_its_locks_and_its_connection_back() {
    // proves: T-5
    for token in [false, true] {
        let bank = Bank::open(1).await;
        probity_txn::create_token_table(&bank.pool).await.unwrap();
        let (observer, before) = (observer(&bank).await, pid(&bank).await);
        let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
            sqlx::query(ADD).execute(&mut *tx).await?;
            sqlx::query(SLEEP).execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(())
        };
        {
            let run = on(&bank.pool, "abandoned").policy(patient());
            let run = async { if token { run.once("T").run(body).await } else { run.run(body).await } };
            tokio::select! {
                outcome = run => panic!("it sleeps: {outcome:?}"),
                () = until(&observer, "wait_event = 'PgSleep'", 1) => {}
            }
        }
        // Waits for the row, and so for the end of the abandoned transaction.
        let add = on(&observer, "next").policy(patient());
        let add = tokio::time::timeout(
            Duration::from_secs(120),
            add.run(async |tx| sqlx::query(ADD).execute(&mut *tx).await),
        );
        add.await.expect("the lock is free").unwrap();
        assert_eq!(bank.balance("b").await, 1, "nothing of the abandoned run is left");
        assert_eq!(pid(&bank).await, before, "the connection went back to the pool");
    }
}

#[tokio::test]
async fn a_statement_that_ends_before_it_could_be_cancelled_costs_no_connection() {
    let bank = Bank::open(1).await;
    let (observer, before) = (observer(&bank).await, pid(&bank).await);
    // The server accepts the connection for the cancellation and never answers it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = (*bank.pool.connect_options()).clone();
    let address = silent.local_addr().unwrap();
    bank.pool.set_connect_options(options.host(&address.ip().to_string()).port(address.port()));
    let mut holder = observer.begin().await.unwrap();
    sqlx::query(LOCK).execute(&mut *holder).await.unwrap();
    {
        let run = on(&bank.pool, "abandoned").policy(patient());
        tokio::select! {
            outcome = run.run(async |tx| sqlx::query(LOCK).execute(&mut *tx).await) => panic!("it waits: {outcome:?}"),
            () = until(&observer, "wait_event = 'advisory'", 1) => {}
        }
    }
    let _connecting = silent.accept().await.unwrap();
    // The statement ends by itself.
    holder.commit().await.unwrap();
    assert_eq!(pid(&bank).await, before, "the connection went back to the pool");
}

#[tokio::test]
async fn a_statement_that_is_under_way_at_the_deadline_is_cancelled() {
    let bank = Bank::open(1).await;
    let (observer, before) = (observer(&bank).await, pid(&bank).await);
    let run =
        on(&bank.pool, "late").policy(patient()).run(async |tx| sqlx::query(SLEEP).execute(&mut *tx).await);
    let passes = async {
        until(&observer, "wait_event = 'PgSleep'", 1).await;
        let_pass(patient().deadline).await;
    };
    let (outcome, ()) = tokio::join!(run, passes);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Deadline { attempts: 1, .. }), "{error:?}");
    assert!(std::error::Error::source(&error).is_some(), "{error}");
    assert_eq!(pid(&bank).await, before, "the connection went back to the pool");
}

/// Runs a closure that idles until the server has ended its session; says how often it was called.
async fn idle(bank: &Bank, policy: Policy, last_statement: bool) -> (Result<u32, Error<sqlx::Error>>, u32) {
    let observer = observer(bank).await;
    let (calls, session) = (AtomicU32::new(0), AtomicI32::new(0));
    let outcome = on(&bank.pool, "idle")
        // Long enough for the attempts that do not idle, on a machine that is busy.
        .policy(Policy { idle_timeout: Some(Duration::from_millis(500)), ..policy })
        .run(async |tx| {
            calls.fetch_add(1, Ordering::SeqCst);
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await?;
            session.store(pid, Ordering::SeqCst);
            if tx.attempt() == 1 {
                // Stands for the call of another service.
                until(&observer, &format!("pid = {pid}"), 0).await;
            }
            if last_statement {
                sqlx::query(ADD).execute(&mut *tx).await?;
            }
            Ok(tx.attempt())
        })
        .await;
    (outcome, calls.into_inner())
}

#[tokio::test]
async fn a_closure_that_idles_too_long_is_not_called_again() {
    let bank = Bank::open(2).await;
    let (outcome, calls) = idle(&bank, patient(), true).await;
    let Err(Error::App(sqlx::Error::Database(error))) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.code().as_deref(), calls), (Some("25P03"), 1));
    // COMMIT also fails on the ended session, so it did not happen.
    let (outcome, calls) = idle(&bank, patient(), false).await;
    let Err(Error::RolledBack(RollbackReason::CommitRefused(failure))) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((failure.class(), calls), (Class::SessionTimeout, 1));
    assert_eq!(bank.balance("b").await, 0);
}

#[tokio::test]
async fn a_closure_that_idles_too_long_is_called_again_if_the_policy_allows_it() {
    let bank = Bank::open(2).await;
    let policy = Policy { retry_session_timeout: true, ..patient() };
    for last_statement in [true, false] {
        let (outcome, calls) = idle(&bank, policy.clone(), last_statement).await;
        assert_eq!((outcome.unwrap(), calls), (2, 2));
    }
    assert_eq!(bank.balance("b").await, 1);
}
