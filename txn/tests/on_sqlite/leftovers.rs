//! Tests that a run leaves nothing in its connection for the next borrower, and does not join a transaction that was
//! left open.

use probity_txn::{Error, Misuse, on};

use super::Bank;
use super::both::move_60;

#[tokio::test]
async fn statements_that_stay_with_the_connection_are_refused_with_a_remedy() {
    let bank = Bank::open(1).await;
    for leftover in [
        "CREATE TEMP TABLE scratch (a)",
        "ATTACH ':memory:' AS other",
        "PRAGMA recursive_triggers = ON",
        "PRAGMA ignore_check_constraints(1)",
    ] {
        let outcome = on(&bank.pool, "tenant").run(async |tx| {
            let _ = sqlx::raw_sql(leftover).execute(&mut *tx).await;
            Ok::<_, sqlx::Error>(())
        });
        let error = outcome.await.expect_err(leftover);
        assert!(matches!(error, Error::Misuse(Misuse::Statement { .. })), "{leftover}: {error:?}");
    }
    let version = on(&bank.pool, "question")
        .run(async |tx| sqlx::query_scalar::<_, i64>("PRAGMA user_version").fetch_one(&mut *tx).await);
    assert_eq!(version.await.unwrap(), 0);
}

#[tokio::test]
async fn a_run_commits_nothing_of_a_transaction_left_open_on_its_connection() {
    // proves: T-1
    let bank = Bank::open(1).await;
    sqlx::raw_sql("BEGIN; UPDATE accounts SET balance = 1 WHERE id = 'a'").execute(&bank.pool).await.unwrap();
    let run = || on(&bank.pool, "transfer").run(async |tx| move_60(tx).await);
    let error = run().await.unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::OpenTransaction { label: "transfer" })), "{error:?}");
    assert_eq!(bank.balance("a").await, 100);
    run().await.expect("the next run works");
}
