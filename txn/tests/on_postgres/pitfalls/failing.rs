use std::sync::{Arc, Mutex};

use probity_txn::{Error, RollbackReason, on};

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
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::StatementFailed(_)))));
}

#[tokio::test]
async fn pitfall_14_after_a_caught_violation_every_statement_fails() {
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

/// A loop that tries again on a conflict, as one finds it in services: around the statements.
async fn naive_loop(
    pool: &PgPool,
    mut body: impl AsyncFnMut(u32, &mut Transaction<'_, Postgres>) -> Answer,
) -> Answer {
    for attempt in 1.. {
        let mut tx = begin(pool).await;
        match body(attempt, &mut tx).await {
            Err(error) if conflicts(&error) => continue,
            Err(error) => return Err(error),
            Ok(()) => return tx.commit().await,
        }
    }
    unreachable!("the loop returns")
}

type Answer = Result<(), sqlx::Error>;

fn conflicts(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("40001")
}

const CONFLICT: &str = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";

#[tokio::test]
async fn pitfall_17_a_closure_that_keeps_state_sends_two_mails() {
    let bank = Bank::open(1).await;
    let mut mails = Vec::new();
    let naive = naive_loop(&bank.pool, async |attempt, tx| {
        mails.push("paid");
        say(tx, CREDIT).await?;
        if attempt == 1 { say(tx, CONFLICT).await.map(drop) } else { Ok(()) }
    });
    naive.await.unwrap();
    assert_eq!(mails, ["paid", "paid"], "the damage");

    let mails: Vec<&str> = Vec::new();
    let sent = on(&bank.pool, "credit")
        .run(async move |tx| {
            let mut mails = mails;
            mails.push("paid");
            query(CREDIT).execute(&mut *tx).await?;
            if tx.attempt() == 1 {
                query(CONFLICT).execute(&mut *tx).await?;
            }
            Ok::<_, sqlx::Error>(mails)
        })
        .await;
    assert_eq!(sent.unwrap(), ["paid"]);
}

#[tokio::test]
async fn pitfall_18_a_conflict_at_commit_escapes_the_loop_around_the_statements() {
    let bank = Bank::open(1).await;
    // Conflicts at the first COMMIT only: a sequence remembers what a rollback undoes.
    sqlx::raw_sql(
        "CREATE SEQUENCE commits;
         CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('commits') % 2 = 1 THEN RAISE EXCEPTION 'pivot' USING ERRCODE = '40001'; END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION conflict()",
    )
    .execute(&bank.pool)
    .await
    .unwrap();
    let naive = naive_loop(&bank.pool, async |_, tx| say(tx, CREDIT).await.map(drop)).await;
    assert!(naive.is_err_and(|error| conflicts(&error)), "the damage: not tried again");
    assert_eq!(bank.balance("b").await, 0);

    query("SELECT setval('commits', 2)").execute(&bank.pool).await.unwrap();
    let attempts = on(&bank.pool, "credit")
        .run(async |tx| {
            query(CREDIT).execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(tx.attempt())
        })
        .await;
    assert_eq!(attempts.unwrap(), 2);
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn pitfall_30_a_mail_before_the_commit_reports_a_payment_that_failed() {
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
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::CommitRefused(_)))));
    assert!(mails.lock().unwrap().is_empty());
}
