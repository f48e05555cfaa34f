use std::time::Duration;

use probity_txn::{Error, Misuse, Policy, RollbackReason, lock::LockError, on};
use tokio::sync::Barrier;

use super::*;
use crate::both::patient;

#[tokio::test]
async fn pitfall_23_an_external_call_inside_a_transaction_starves_the_pool() {
    let bank = Bank::open(1).await;
    let mut naive = begin(&bank.pool).await;
    say(&mut naive, "SELECT 1").await.unwrap();
    let external_call = Duration::from_secs(1);
    let other = tokio::time::timeout(external_call, bank.pool.acquire()).await;
    assert!(other.is_err(), "the damage: nobody else has a connection as long as the call lasts");
    naive.commit().await.unwrap();

    let policy = Policy { between_statements_max: Some(Duration::from_millis(50)), ..Policy::payments() };
    let outcome = on(&bank.pool, "pay")
        .policy(policy)
        .run(async |tx| {
            query("SELECT 1").execute(&mut *tx).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::BetweenStatements { .. }))));
}

#[tokio::test]
async fn pitfall_24_locks_in_different_orders_deadlock() {
    let bank = Bank::open(2).await;
    let (lock_a, lock_b) = (
        "SELECT 1 FROM accounts WHERE id = 'a' FOR UPDATE",
        "SELECT 1 FROM accounts WHERE id = 'b' FOR UPDATE",
    );
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    say(&mut a, lock_a).await.unwrap();
    say(&mut b, lock_b).await.unwrap();
    let (one, two) = tokio::join!(
        async {
            let answer = say(&mut a, lock_b).await;
            a.rollback().await.unwrap();
            answer
        },
        async {
            let answer = say(&mut b, lock_a).await;
            b.rollback().await.unwrap();
            answer
        }
    );
    assert!(one.is_err() != two.is_err(), "the damage: one of them is the victim");

    let start = Barrier::new(2);
    let run = async |keys: [&str; 2]| {
        on(&bank.pool, "transfer")
            .policy(Policy { attempts: 1, ..patient() })
            .run(async |tx| {
                start.wait().await;
                tx.lock_many::<Account>(keys).await.map(|rows| rows.len())
            })
            .await
    };
    let (one, two): (Result<_, Error<LockError>>, _) = tokio::join!(run(["a", "b"]), run(["b", "a"]));
    assert_eq!((one.unwrap(), two.unwrap()), (2, 2));
}

#[tokio::test]
async fn pitfall_25_for_update_on_a_parent_deadlocks_with_its_children() {
    let bank = Bank::open(3).await;
    // Checked at once, so that the insert takes its share of the parent's lock.
    let child = "CREATE TABLE refunds (account TEXT NOT NULL REFERENCES accounts (id))";
    query(child).execute(&bank.pool).await.unwrap();
    let (insert, lock) =
        ("INSERT INTO refunds VALUES ('a')", "SELECT 1 FROM accounts WHERE id = 'a' FOR UPDATE");
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    say(&mut a, insert).await.unwrap();
    say(&mut b, insert).await.unwrap();
    let second = async |mut tx: Transaction<'_, Postgres>| {
        let answer = say(&mut tx, lock).await;
        tx.rollback().await.unwrap();
        answer
    };
    let (one, two) = tokio::join!(second(a), second(b));
    assert!(one.is_err() != two.is_err(), "the damage: one of them is the victim");

    let both = Barrier::new(2);
    let run = async || {
        on(&bank.pool, "refund")
            .policy(Policy { attempts: 1, ..patient() })
            .run(async |tx| {
                query(insert).execute(&mut *tx).await?;
                both.wait().await;
                tx.lock_one::<Account>("a").await.map(|_| ())
            })
            .await
    };
    let (one, two): (Result<_, Error<LockError>>, _) = tokio::join!(run(), run());
    one.unwrap();
    two.unwrap();
}

#[tokio::test]
async fn pitfall_27_skip_locked_leaves_locked_rows_out_of_the_total() {
    let bank = Bank::open(3).await;
    query("UPDATE accounts SET balance = 50 WHERE id = 'b'").execute(&bank.pool).await.unwrap();
    let mut holder = begin(&bank.pool).await;
    say(&mut holder, "SELECT 1 FROM accounts WHERE id = 'b' FOR UPDATE").await.unwrap();
    let total = "SELECT sum(balance)::bigint FROM
        (SELECT balance FROM accounts ORDER BY id FOR UPDATE SKIP LOCKED) AS free";
    assert_eq!(find(&bank.pool, total).await, 100, "the damage: of 150");

    let run = on(&bank.pool, "total").policy(patient()).run(async |tx| {
        tx.lock_many::<Account>(["a", "b"]).await?;
        Ok::<i64, LockError>(
            query_scalar("SELECT sum(balance)::bigint FROM accounts").fetch_one(&mut *tx).await?,
        )
    });
    let other = async {
        until_somebody_waits(&bank.pool).await;
        holder.rollback().await.unwrap();
    };
    let (total, ()) = tokio::join!(run, other);
    assert_eq!(total.unwrap(), 150);
}

#[tokio::test]
async fn pitfall_26_a_second_connection_while_holding_the_first_waits_for_itself() {
    let bank = Bank::open(1).await;
    let naive = begin(&bank.pool).await;
    let second = query("INSERT INTO entries VALUES ('a', 1)").execute(&bank.pool);
    let second = tokio::time::timeout(Duration::from_secs(1), second).await;
    assert!(second.is_err(), "the damage: it would wait until somebody loses patience");
    naive.rollback().await.unwrap();

    let outer = on(&bank.pool, "outer")
        .run(async |_tx| on(&bank.pool, "audit").run(async |_tx| Ok::<_, sqlx::Error>(())).await);
    let outcome = Box::pin(outer).await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Nested { .. }))));
}
