use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Effect, Error, Isolation, Misuse, Policy, on};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions};

use super::Bank;

async fn move_60(tx: &mut probity_txn::Tx<'_, sqlx::Sqlite>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance - 60 WHERE id = 'a'").execute(&mut *tx).await?;
    sqlx::query("UPDATE accounts SET balance = balance + 60 WHERE id = 'b'").execute(&mut *tx).await?;
    Ok(())
}

/// A connection of another process, so to speak: it holds the write lock until it is dropped.
async fn foreign_writer(bank: &Bank) -> SqliteConnection {
    let mut writer = connect(bank).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut writer).await.unwrap();
    writer
}

async fn connect(bank: &Bank) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(bank.folder.path().join("bank.db"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// The same file without patience for locks, so that a conflict shows at once.
async fn impatient(bank: &Bank) -> sqlx::SqlitePool {
    let options =
        probity_txn::sqlite::options(bank.folder.path().join("bank.db")).busy_timeout(Duration::ZERO);
    sqlx::SqlitePool::connect_with(options).await.unwrap()
}

#[tokio::test]
async fn a_busy_database_is_tried_again_until_it_is_free() {
    // proves: T-4
    let bank = Bank::open(1).await;
    let pool = impatient(&bank).await;
    let writer = foreign_writer(&bank).await;
    let policy = Policy { attempts: u32::MAX, ..Policy::payments() };
    let run = on(&pool, "transfer").policy(policy).run(async |tx| move_60(tx).await);
    let mut run = std::pin::pin!(run);
    assert!(tokio::time::timeout(Duration::from_millis(50), run.as_mut()).await.is_err());
    writer.close().await.unwrap();
    run.await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn the_last_conflict_is_reported_and_nothing_was_written() {
    let bank = Bank::open(1).await;
    let pool = impatient(&bank).await;
    let _writer = foreign_writer(&bank).await;
    let outcome = on(&pool, "transfer").attempts(3).run(async |tx| move_60(tx).await).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.effect(), Effect::NotApplied);
    let Error::Conflict { attempts, last } = error else {
        panic!("{error:?}");
    };
    assert_eq!((attempts, last.code()), (3, Some("5")));
}

#[tokio::test]
async fn an_error_without_a_failed_statement_is_the_closures_own_and_not_tried_again() {
    let bank = Bank::open(2).await;
    let calls = AtomicU32::new(0);
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| {
            calls.fetch_add(1, Ordering::Relaxed);
            move_60(tx).await?;
            Err::<(), _>(sqlx::Error::WorkerCrashed)
        })
        .await;
    assert!(matches!(outcome, Err(Error::App(sqlx::Error::WorkerCrashed))));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(bank.balance("b").await, 0);
}

#[tokio::test]
async fn the_deadline_ends_a_closure_that_takes_too_long() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .deadline(Duration::from_millis(80))
        .run(async |tx| {
            move_60(tx).await?;
            std::future::pending::<()>().await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Deadline { attempts: 1, .. })));
    bank.assert_clean().await;
    assert_eq!(bank.balance("b").await, 0);
}

#[tokio::test]
async fn an_isolation_that_sqlite_does_not_have_is_refused() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .isolation(Isolation::ReadCommitted)
        .run(async |tx| move_60(tx).await)
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Isolation { .. }))));
}

#[tokio::test]
async fn attempts_and_conflicts_are_counted_by_label_and_class() {
    let bank = Bank::open(1).await;
    let pool = impatient(&bank).await;
    let _writer = foreign_writer(&bank).await;
    let notes = super::both::metrics::Notes::default();
    let _recorded = metrics::set_default_local_recorder(&notes);
    let refused = on(&pool, "fight").attempts(3).run(async |tx| move_60(tx).await).await;
    assert!(matches!(refused, Err(Error::Conflict { attempts: 3, .. })), "{refused:?}");
    assert_eq!(notes.read("probity_txn_attempts_total{label=fight}"), 3);
    assert_eq!(notes.read("probity_txn_conflicts_total{label=fight,class=busy}"), 3);
    assert_eq!(notes.read("probity_txn_runs_total{label=fight,outcome=conflict}"), 1);
}

#[tokio::test]
async fn another_attempt_is_announced_only_if_there_is_time_for_it() {
    let bank = Bank::open(1).await;
    let pool = impatient(&bank).await;
    let _writer = foreign_writer(&bank).await;
    let (journal, _listening) = super::both::metrics::Journal::listen();
    let endless = Policy { backoff_base: Duration::MAX, backoff_max: Duration::MAX, ..Policy::payments() };
    let late = on(&pool, "late").policy(endless).run(async |tx| move_60(tx).await).await;
    assert!(matches!(late, Err(Error::Deadline { attempts: 1, .. })), "{late:?}");
    assert!(!journal.has(&["the run tries again"]));
    let refused = on(&pool, "fight").attempts(2).run(async |tx| move_60(tx).await).await;
    assert!(matches!(refused, Err(Error::Conflict { attempts: 2, .. })), "{refused:?}");
    assert!(journal.has(&["the run tries again"]));
}

#[tokio::test]
async fn a_commit_that_finds_readers_is_undone_and_tried_again_with_fresh_captures() {
    // proves: T-4
    let folder = testkit::temp_dir();
    // With a rollback journal a COMMIT waits for readers; refused, it leaves the transaction open.
    let options = probity_txn::sqlite::options(folder.path().join("journal.db"))
        .journal_mode(SqliteJournalMode::Delete)
        .busy_timeout(Duration::ZERO);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes (attempt BIGINT)").execute(&pool).await.unwrap();
    let mut reader = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM notes").execute(&mut reader).await.unwrap();
    let reader = tokio::sync::Mutex::new(Some(reader));
    let (reader, mut seen) = (&reader, Vec::new());
    let seen = on(&pool, "note")
        .run(async move |tx| {
            seen.push(tx.attempt());
            sqlx::query("INSERT INTO notes VALUES (?)").bind(tx.attempt()).execute(&mut *tx).await?;
            if tx.attempt() == 2
                && let Some(reader) = reader.lock().await.take()
            {
                reader.close().await?;
            }
            Ok::<_, sqlx::Error>(seen)
        })
        .await;
    assert_eq!(seen.unwrap(), [2]);
    let notes: Vec<i64> = sqlx::query_scalar("SELECT attempt FROM notes").fetch_all(&pool).await.unwrap();
    assert_eq!(notes, [2]);
}

#[tokio::test]
async fn a_session_made_read_only_by_its_owner_stays_read_only() {
    let bank = Bank::open(1).await;
    let options = probity_txn::sqlite::options(bank.folder.path().join("bank.db")).pragma("query_only", "1");
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let query_only =
        async || -> i64 { sqlx::query_scalar("PRAGMA query_only").fetch_one(&pool).await.unwrap() };
    assert_eq!(query_only().await, 1);
    let look = "SELECT 1 FROM accounts";
    on(&pool, "look").read_only().run(async |tx| sqlx::query(look).execute(&mut *tx).await).await.unwrap();
    assert_eq!(query_only().await, 1, "after COMMIT");
    let refused = on(&pool, "look").read_only().run(async |_tx| Err::<(), _>(sqlx::Error::RowNotFound)).await;
    assert!(refused.is_err());
    assert_eq!(query_only().await, 1, "after ROLLBACK");
    let refused = on(&pool, "write").run(async |tx| move_60(tx).await).await;
    assert!(refused.is_err());
    assert_eq!(query_only().await, 1, "after a refused write");
}

#[tokio::test]
async fn a_key_that_is_equal_by_its_collation_is_not_missing() {
    let bank = Bank::open(1).await;
    super::both::lock::equal_by_the_database_alone(&bank, "TEXT COLLATE NOCASE", "A", "a").await;
}
