use std::time::Duration;

use probity_txn::{Effect, Error, ErrorKind, RollbackReason, on};

use super::{Bank, move_60};

#[tokio::test]
async fn ok_commits_all_writes_together() {
    // proves: T-1
    // proves: T-2
    let bank = Bank::open(2).await;
    on(&bank.pool, "transfer").run(async |tx| move_60(tx).await).await.unwrap();
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60));
}

#[tokio::test]
async fn an_error_of_the_closure_rolls_everything_back() {
    // proves: T-1
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| {
            move_60(tx).await.unwrap();
            Err::<(), _>("changed my mind")
        })
        .await;
    assert!(matches!(outcome, Err(Error::App("changed my mind"))));
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (100, 0));
}

#[tokio::test]
async fn a_panic_of_the_closure_rolls_everything_back() {
    // proves: T-1
    let bank = Bank::open(1).await;
    let pool = bank.pool.clone();
    let run = tokio::spawn(async move {
        on(&pool, "transfer")
            .run(async |tx| -> Result<(), sqlx::Error> {
                move_60(tx).await?;
                panic!("a bug")
            })
            .await
    });
    assert!(run.await.unwrap_err().is_panic());
    bank.assert_clean().await;
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (100, 0));
}

#[tokio::test]
async fn a_swallowed_statement_error_is_never_committed() {
    // proves: T-3
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| -> Result<(), sqlx::Error> {
            sqlx::query("UPDATE accounts SET balance = 7 WHERE id = 'b'").execute(&mut *tx).await?;
            let _ = sqlx::query("UPDATE accounts SET balance = -1 WHERE id = 'a'").execute(&mut *tx).await;
            Ok(())
        })
        .await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RolledBack);
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(matches!(error, Error::RolledBack(RollbackReason::StatementFailed(_))));
    assert_eq!(bank.balance("b").await, 0);
}

#[tokio::test]
async fn after_a_failed_statement_no_further_one_runs() {
    // proves: T-3
    let bank = Bank::open(1).await;
    let refused = on(&bank.pool, "transfer")
        .run(async |tx| -> Result<(), sqlx::Error> {
            let _ = sqlx::query("SELECT nothing FROM nowhere").fetch_all(&mut *tx).await;
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            Ok(())
        })
        .await;
    let Err(Error::App(sqlx::Error::Database(error))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.code().as_deref(), Some("25P02"));
}

#[tokio::test]
async fn a_statement_dropped_before_its_answer_is_never_committed() {
    // proves: T-3
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| -> Result<(), sqlx::Error> {
            // Counts to a million, so that the answer is not there when the future is dropped.
            let update = sqlx::query(
                "UPDATE accounts SET balance = (WITH RECURSIVE n(i) AS
                     (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
                 SELECT max(i) FROM n) WHERE id = 'b'",
            );
            let _ = tokio::time::timeout(Duration::ZERO, update.execute(&mut *tx)).await;
            Ok(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::StatementAbandoned))));
    assert_eq!(bank.balance("b").await, 0);
}

#[tokio::test]
async fn a_reader_may_stop_after_the_first_row() {
    use futures_util::TryStreamExt as _;
    let bank = Bank::open(1).await;
    let first: i64 = on(&bank.pool, "peek")
        .run(async |tx| {
            let mut rows = sqlx::query_scalar("SELECT balance FROM accounts ORDER BY id").fetch(&mut *tx);
            rows.try_next().await.map(Option::unwrap)
        })
        .await
        .unwrap();
    assert_eq!(first, 100);
}

#[tokio::test]
async fn no_row_is_an_answer_and_not_a_failed_statement() {
    let bank = Bank::open(1).await;
    let found = on(&bank.pool, "look")
        .run(async |tx| -> Result<bool, sqlx::Error> {
            let found = sqlx::query("SELECT 1 FROM accounts WHERE id = 'z'").fetch_one(&mut *tx).await;
            Ok(found.is_ok())
        })
        .await;
    assert!(!found.unwrap());
}

#[tokio::test]
async fn a_commit_that_a_deferred_constraint_refuses_is_rolled_back() {
    // proves: T-2
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "entry")
        .run(async |tx| sqlx::query("INSERT INTO entries VALUES ('nobody', 5)").execute(&mut *tx).await)
        .await;
    assert!(matches!(outcome.unwrap_err(), Error::RolledBack(RollbackReason::CommitRefused(_))));
    bank.assert_clean().await;
    let entries: i64 =
        sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(&bank.pool).await.unwrap();
    assert_eq!(entries, 0);
}

#[tokio::test]
async fn the_closure_can_ask_for_a_rollback() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "dry.run")
        .run(async |tx| {
            move_60(tx).await?;
            tx.set_rollback_only();
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::Requested))));
    assert_eq!(bank.balance("a").await, 100);
}
