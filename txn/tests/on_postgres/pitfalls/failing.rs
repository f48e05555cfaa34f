use std::sync::{Arc, Mutex};

use probity_txn::{Error, Reason, on};

use super::*;

const CREDIT: &str = "UPDATE accounts SET balance = balance + 60 WHERE id = 'b'";
const OVERDRAW: &str = "UPDATE accounts SET balance = -1 WHERE id = 'a'";
const ORPHAN: &str = "INSERT INTO entries VALUES ('nobody', 5)";

#[tokio::test]
async fn pitfall_13_a_swallowed_error_loses_everything_and_reports_success() {
    let bank = Bank::open(1).await;
    let mut naive = begin(&bank.pool).await;
    say(&mut naive, CREDIT).await.unwrap();
    let _ = say(&mut naive, OVERDRAW).await;
    naive.commit().await.expect("the damage: the driver says that it was committed");
    assert_eq!(bank.balance("b").await, 0, "and it was not");

    let outcome = on(&bank.pool, "credit")
        .run(async |tx| {
            query(CREDIT).execute(&mut *tx).await?;
            let _ = query(OVERDRAW).execute(&mut *tx).await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(Reason::StatementFailed(_)))));
}

#[tokio::test]
async fn pitfall_14_after_a_caught_violation_nothing_works() {
    let bank = Bank::open(1).await;
    let again = "INSERT INTO accounts VALUES ('a', 1)";
    let mut naive = begin(&bank.pool).await;
    assert!(say(&mut naive, again).await.is_err(), "expected, and caught");
    let error = say(&mut naive, CREDIT).await.unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().as_deref(), Some("25P02"), "the damage");
    naive.rollback().await.unwrap();

    on(&bank.pool, "credit")
        .run(async |tx| {
            let known = tx.scope(async |tx| query(again).execute(&mut *tx).await).await.is_err();
            assert!(known);
            query(CREDIT).execute(&mut *tx).await
        })
        .await
        .unwrap();
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn pitfall_30_a_mail_before_the_commit_tells_what_did_not_happen() {
    let bank = Bank::open(1).await;
    let mails = Arc::new(Mutex::new(Vec::new()));
    let mut naive = begin(&bank.pool).await;
    say(&mut naive, ORPHAN).await.unwrap();
    mails.lock().unwrap().push("you got 5");
    assert!(naive.commit().await.is_err(), "a deferred constraint is checked at COMMIT");
    assert_eq!(mails.lock().unwrap().drain(..).count(), 1, "the damage");

    let outcome = on(&bank.pool, "entry")
        .run(async |tx| {
            let mails = Arc::clone(&mails);
            tx.after_commit(async move { mails.lock().unwrap().push("you got 5") });
            query(ORPHAN).execute(&mut *tx).await
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(Reason::CommitRefused(_)))));
    assert!(mails.lock().unwrap().is_empty());
}
