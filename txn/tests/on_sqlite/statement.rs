//! SQLite ends a transaction at the request of a statement, and runs a text only as far as the caller reads.

use futures_util::TryStreamExt as _;
use probity_txn::{Error, Misuse, on};

use super::Bank;

#[tokio::test]
async fn no_statement_runs_after_one_that_ended_the_transaction_unnoticed() {
    // proves: T-1
    // proves: T-3
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "unseen")
        .run(async |tx| {
            let ends = "UPDATE accounts SET balance = 60 WHERE id = 'b' RETURNING balance;
                        INSERT OR ROLLBACK INTO accounts VALUES ('a', 0)";
            let _ = sqlx::query(ends).fetch(&mut *tx).try_next().await;
            let _ = sqlx::query("UPDATE accounts SET balance = 40 WHERE id = 'a'").execute(&mut *tx).await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Statement { .. }))), "{outcome:?}");
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (100, 0));
}
