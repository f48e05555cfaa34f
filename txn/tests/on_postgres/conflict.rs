use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Error, Isolation, Misuse, Policy, RollbackReason, on};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Barrier;

use super::Bank;
use super::both::patient;

/// Two SERIALIZABLE runs that read both accounts and write one each: not both can be right. They
/// meet after reading, in their first attempts; `write_order` says who writes first.
async fn write_skew(bank: &Bank, attempts: &AtomicU32) -> [Result<i64, Error<sqlx::Error>>; 2] {
    let both_read = Barrier::new(2);
    let run = async |id: &str| {
        on(&bank.pool, "skew")
            .isolation(Isolation::Serializable)
            .run(async |tx| {
                attempts.fetch_add(1, Ordering::Relaxed);
                let sum: i64 = sqlx::query_scalar("SELECT sum(balance)::bigint FROM accounts")
                    .fetch_one(&mut *tx)
                    .await?;
                if tx.attempt() == 1 {
                    both_read.wait().await;
                }
                sqlx::query("UPDATE accounts SET balance = balance + $1 WHERE id = $2")
                    .bind(sum)
                    .bind(id)
                    .execute(&mut *tx)
                    .await?;
                Ok::<_, sqlx::Error>(sum)
            })
            .await
    };
    let (a, b) = tokio::join!(run("a"), run("b"));
    [a, b]
}

#[tokio::test]
async fn a_serialization_failure_is_tried_again_in_a_fresh_transaction() {
    // proves: T-4
    let bank = Bank::open(2).await;
    let attempts = AtomicU32::new(0);
    let mut sums = write_skew(&bank, &attempts).await.map(Result::unwrap);
    sums.sort_unstable();
    // In either order the second one sees what the first one wrote.
    assert_eq!(sums, [100, 200]);
    assert_eq!(bank.balance("a").await + bank.balance("b").await, 400);
    assert!(attempts.load(Ordering::Relaxed) > 2);
}

#[tokio::test]
async fn each_attempt_starts_from_a_fresh_copy_of_what_the_closure_owns() {
    // proves: T-4
    let bank = Bank::open(1).await;
    let calls = AtomicU32::new(0);
    let (calls, mut seen) = (&calls, Vec::new());
    let conflict = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";
    let seen = on(&bank.pool, "captures")
        .run(async move |tx| {
            seen.push(calls.fetch_add(1, Ordering::Relaxed));
            if tx.attempt() < 3 {
                sqlx::raw_sql(conflict).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(seen)
        })
        .await;
    assert_eq!(seen.unwrap(), [2]);
}

#[tokio::test]
async fn a_serialization_failure_raised_by_commit_is_tried_again() {
    // proves: T-4
    let bank = Bank::open(3).await;
    let attempts = AtomicU32::new(0);
    // The closure of the first run ends with all its statements answered; only then does the other
    // transaction commit, so the conflict can show at COMMIT alone.
    let closure_done = Arc::new(Barrier::new(2));
    let other_done = Arc::new(Barrier::new(2));
    let other = async {
        let mut tx = bank.pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
        let sum: i64 = sqlx::query_scalar("SELECT sum(balance)::bigint FROM accounts")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        closure_done.wait().await;
        sqlx::query("UPDATE accounts SET balance = balance + $1 WHERE id = 'b'")
            .bind(sum)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        other_done.wait().await;
    };
    let run = on(&bank.pool, "skew").isolation(Isolation::Serializable).run(async |tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        let sum: i64 =
            sqlx::query_scalar("SELECT sum(balance)::bigint FROM accounts").fetch_one(&mut *tx).await?;
        sqlx::query("UPDATE accounts SET balance = balance + $1 WHERE id = 'a'")
            .bind(sum)
            .execute(&mut *tx)
            .await?;
        if tx.attempt() == 1 {
            closure_done.wait().await;
            other_done.wait().await;
        }
        Ok::<_, sqlx::Error>(sum)
    });
    let (outcome, ()) = tokio::join!(run, other);
    assert_eq!(outcome.unwrap(), 200);
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_deadlock_is_resolved_by_trying_again() {
    // proves: T-4
    let bank = Bank::open(2).await;
    let both_hold_one = Barrier::new(2);
    let run = async |first: &str, second: &str| {
        on(&bank.pool, "transfer")
            .policy(patient())
            .run(async |tx| {
                let add = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";
                sqlx::query(add).bind(first).execute(&mut *tx).await?;
                if tx.attempt() == 1 {
                    both_hold_one.wait().await;
                }
                sqlx::query(add).bind(second).execute(&mut *tx).await
            })
            .await
    };
    let (one, two) = tokio::join!(run("a", "b"), run("b", "a"));
    one.unwrap();
    two.unwrap();
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (102, 2));
}

#[tokio::test]
async fn a_conflict_that_the_closure_swallows_is_still_tried_again() {
    // proves: T-4
    let bank = Bank::open(1).await;
    let fail = "DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '40001'; END $$";
    let seen = on(&bank.pool, "made.up")
        .run(async |tx| {
            if tx.attempt() < 3 {
                let _ = sqlx::query(fail).execute(&mut *tx).await;
            }
            Ok::<_, sqlx::Error>(tx.attempt())
        })
        .await;
    assert_eq!(seen.unwrap(), 3);
}

#[tokio::test]
async fn a_connection_lost_before_commit_is_replaced() {
    // proves: T-4
    let bank = Bank::open(2).await;
    let seen = on(&bank.pool, "unlucky")
        .run(async |tx| {
            sqlx::query("UPDATE accounts SET balance = balance + 1 WHERE id = 'b'").execute(&mut *tx).await?;
            if tx.attempt() == 1 {
                sqlx::query("SELECT pg_terminate_backend(pg_backend_pid())").execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(tx.attempt())
        })
        .await;
    assert_eq!(seen.unwrap(), 2);
    assert_eq!(bank.balance("b").await, 1);
}

/// Runs a statement whose plan a migration made stale on the pool's only connection.
async fn with_a_stale_plan(bank: &Bank, policy: Policy) -> Result<u32, Error<sqlx::Error>> {
    let all = "SELECT * FROM accounts";
    sqlx::query(all).execute(&bank.pool).await.unwrap();
    let mut migration = PgConnection::connect_with(&bank.pool.connect_options()).await.unwrap();
    let migrate = "ALTER TABLE accounts ADD COLUMN IF NOT EXISTS note TEXT";
    sqlx::raw_sql(migrate).execute(&mut migration).await.unwrap();
    on(&bank.pool, "stale")
        .policy(policy)
        .run(async |tx| {
            sqlx::query(all).execute(&mut *tx).await?;
            Ok(tx.attempt())
        })
        .await
}

#[tokio::test]
async fn a_plan_that_a_migration_made_stale_is_planned_afresh_on_another_connection() {
    // proves: T-4
    let bank = Bank::open(1).await;
    assert_eq!(with_a_stale_plan(&bank, Policy::payments()).await.unwrap(), 2);
}

#[tokio::test]
async fn plans_that_are_stale_on_each_connection_of_the_pool_cost_one_attempt() {
    // proves: T-4
    let bank = Bank::open(5).await;
    let all = "SELECT * FROM accounts";
    let mut connections = Vec::new();
    for _ in 0..5 {
        let mut connection = bank.pool.acquire().await.unwrap();
        sqlx::query(all).execute(&mut *connection).await.unwrap();
        connections.push(connection);
    }
    drop(connections);
    let mut migration = PgConnection::connect_with(&bank.pool.connect_options()).await.unwrap();
    sqlx::raw_sql("ALTER TABLE accounts ADD COLUMN note TEXT").execute(&mut migration).await.unwrap();
    let run = on(&bank.pool, "stale").attempts(2).run(async |tx| {
        sqlx::query(all).execute(&mut *tx).await?;
        Ok::<_, sqlx::Error>(tx.attempt())
    });
    assert_eq!(run.await.unwrap(), 2);
}

#[tokio::test]
async fn a_stale_plan_costs_one_run_and_not_each_that_follows() {
    let bank = Bank::open(1).await;
    let once = Policy { retry_stale_plan: false, ..Policy::payments() };
    let first = with_a_stale_plan(&bank, once).await;
    assert!(matches!(first, Err(Error::App(sqlx::Error::Database(_)))), "{first:?}");
    // On the connection with the stale plan the helper's own first statement would fail already.
    assert_eq!(with_a_stale_plan(&bank, Policy::payments()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_stale_plan_that_a_scope_absorbs_ends_with_its_run() {
    let bank = Bank::open(1).await;
    let all = "SELECT * FROM accounts";
    sqlx::query(all).execute(&bank.pool).await.unwrap();
    let mut migration = PgConnection::connect_with(&bank.pool.connect_options()).await.unwrap();
    sqlx::raw_sql("ALTER TABLE accounts ADD COLUMN note TEXT").execute(&mut migration).await.unwrap();
    let absorbed = on(&bank.pool, "stale")
        .policy(Policy { retry_stale_plan: false, ..Policy::payments() })
        .run(async |tx| {
            let inner = tx.scope(async |tx| sqlx::query(all).execute(&mut *tx).await).await;
            sqlx::query("UPDATE accounts SET balance = 7 WHERE id = 'b'").execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(inner.is_err())
        })
        .await;
    assert!(absorbed.unwrap(), "the plan was stale");
    assert_eq!(bank.balance("b").await, 7, "the run went on");
    sqlx::query(all).execute(&bank.pool).await.expect("nobody meets the stale plan any more");
}

#[tokio::test]
async fn an_unsupported_feature_is_not_taken_for_a_stale_plan() {
    let bank = Bank::open(1).await;
    let policy = Policy { retry_stale_plan: true, ..Policy::payments() };
    let outcome = on(&bank.pool, "unsupported")
        .policy(policy)
        .run(async |tx| {
            // 0A000 as well, from another routine.
            let text = "SELECT id FROM accounts EXCEPT SELECT account FROM entries FOR UPDATE";
            sqlx::query(text).execute(&mut *tx).await.map(drop)
        })
        .await;
    let Err(Error::App(sqlx::Error::Database(error))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.code().as_deref(), Some("0A000"));
}

/// Refuses at COMMIT every entry whose amount is negative, with a code that no table of ours has.
const REFUSES_AT_COMMIT: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'BK001'; END $$;
     CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW WHEN (NEW.amount < 0) EXECUTE FUNCTION refuse();";

#[tokio::test]
async fn a_commit_that_the_server_refuses_with_a_code_of_the_users_is_refused_at_once() {
    // proves: T-6
    let bank = Bank::open(2).await;
    sqlx::raw_sql(REFUSES_AT_COMMIT).execute(&bank.pool).await.unwrap();
    probity_txn::create_token_table(&bank.pool).await.unwrap();
    let attempts = AtomicU32::new(0);
    let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Postgres>| {
        attempts.fetch_add(1, Ordering::SeqCst);
        let entry = sqlx::query("INSERT INTO entries VALUES ('a', -1)");
        entry.execute(&mut *tx).await.map(|_| ())
    };
    let plain = on(&bank.pool, "refused").run(body).await;
    let with_token = on(&bank.pool, "refused").once("refused-1").run(body).await;
    for outcome in [plain, with_token] {
        let Err(Error::RolledBack(RollbackReason::CommitRefused(failure))) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(failure.code(), Some("BK001"));
    }
    assert_eq!(attempts.load(Ordering::SeqCst), 2, "one attempt each");
    bank.assert_clean().await;
}

#[tokio::test]
async fn an_aborted_transaction_is_noticed_even_when_no_statement_reported_it() {
    // proves: T-2
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "aborted")
        .run(async |tx| {
            use futures_util::TryStreamExt as _;
            // The first row arrives, the reader stops, and only then the statement fails.
            let mut rows =
                sqlx::query("SELECT 1 / (3 - i) FROM generate_series(1, 100000) AS i").fetch(&mut *tx);
            rows.try_next().await?;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::CommitRefused(_)))), "{outcome:?}");
    bank.assert_clean().await;
}

#[tokio::test]
async fn a_lock_that_is_not_granted_in_time_is_the_closures_error() {
    let bank = Bank::open(2).await;
    let mut holder = bank.pool.begin().await.unwrap();
    let lock = "SELECT 1 FROM accounts WHERE id = 'a' FOR UPDATE";
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let policy = Policy { lock_timeout: Some(Duration::from_millis(20)), ..Policy::payments() };
    let outcome = on(&bank.pool, "patience")
        .policy(policy)
        .run(async |tx| sqlx::query(lock).execute(&mut *tx).await)
        .await;
    let Err(Error::App(sqlx::Error::Database(error))) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.code().as_deref(), Some("55P03"));
}

#[tokio::test]
async fn the_timeouts_of_a_run_end_with_it() {
    let bank = Bank::open(1).await;
    on(&bank.pool, "peek").run(async |tx| sqlx::query("SELECT 1").execute(&mut *tx).await).await.unwrap();
    let after: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&bank.pool).await.unwrap();
    assert_eq!(after, "0");
    assert_eq!(Misuse::NoAttempts.to_string(), "the policy allows zero attempts; allow at least one");
}

#[tokio::test]
async fn attempts_and_conflicts_are_counted_by_label_and_class() {
    let bank = Bank::open(1).await;
    let notes = super::both::metrics::Notes::default();
    let _recorded = metrics::set_default_local_recorder(&notes);
    let conflict = "DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '40P01'; END $$";
    on(&bank.pool, "fight")
        .run(async |tx| {
            if tx.attempt() < 3 {
                sqlx::raw_sql(conflict).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(notes.read("probity_txn_attempts_total{label=fight}"), 3);
    assert_eq!(notes.read("probity_txn_conflicts_total{label=fight,class=deadlock}"), 2);
    assert_eq!(notes.read("probity_txn_runs_total{label=fight,outcome=committed}"), 1);
}
