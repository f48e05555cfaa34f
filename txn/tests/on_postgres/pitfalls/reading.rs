use probity_txn::{
    Affected as _, Error, Isolation, Misuse, Tx, create_token_table,
    lock::{LockError, Locked},
    on,
};
use tokio::sync::Barrier;

use super::*;

/// Refunds are entries of account `a`; together they must not exceed its 100.
const REFUNDED: &str = "SELECT coalesce(sum(amount), 0)::bigint FROM entries WHERE account = 'a'";
const REFUND: &str = "INSERT INTO entries VALUES ('a', 60)";
const FORGET: &str = "DELETE FROM entries";

#[tokio::test]
async fn pitfall_1_check_then_insert_charges_twice() {
    let bank = Bank::open(2).await;
    let charges = "SELECT count(*) FROM entries WHERE account = 'b'";
    let charge = "INSERT INTO entries VALUES ('b', 5)";
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    assert_eq!((ask(&mut a, charges).await, ask(&mut b, charges).await), (0, 0));
    say(&mut a, charge).await.unwrap();
    say(&mut b, charge).await.unwrap();
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(find(&bank.pool, charges).await, 2, "the damage");

    query(FORGET).execute(&bank.pool).await.unwrap();
    create_token_table(&bank.pool).await.unwrap();
    let run = || {
        on(&bank.pool, "charge").once("K").run(async |tx| {
            query(charge).execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(())
        })
    };
    let (one, two) = tokio::join!(run(), run());
    one.unwrap();
    two.unwrap();
    assert_eq!(find(&bank.pool, charges).await, 1);
}

#[tokio::test]
async fn pitfall_2_summing_without_the_parents_lock_refunds_too_much() {
    let bank = Bank::open(2).await;
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    assert_eq!((ask(&mut a, REFUNDED).await, ask(&mut b, REFUNDED).await), (0, 0));
    say(&mut a, REFUND).await.unwrap();
    say(&mut b, REFUND).await.unwrap();
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(find(&bank.pool, REFUNDED).await, 120, "the damage: of 100");

    query(FORGET).execute(&bank.pool).await.unwrap();
    let run = || {
        on(&bank.pool, "refund").run(async |tx| {
            let _account = tx.lock_one::<Account>("a").await?;
            let sum: i64 = query_scalar(REFUNDED).fetch_one(&mut *tx).await?;
            if sum + 60 > 100 {
                return Ok(false);
            }
            query(REFUND).execute(&mut *tx).await?;
            Ok::<_, LockError>(true)
        })
    };
    let (one, two) = tokio::join!(run(), run());
    assert_ne!(one.unwrap(), two.unwrap());
    assert_eq!(find(&bank.pool, REFUNDED).await, 60);
}

#[tokio::test]
async fn pitfall_3_a_lock_at_repeatable_read_proves_nothing() {
    let bank = Bank::open(3).await;
    let repeatable_read = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    let lock = "SELECT 1 FROM accounts WHERE id = 'a' FOR UPDATE";
    let mut a = bank.pool.begin_with(repeatable_read).await.unwrap();
    let mut b = bank.pool.begin_with(repeatable_read).await.unwrap();
    say(&mut a, lock).await.unwrap();
    assert_eq!(ask(&mut a, REFUNDED).await, 0);
    say(&mut a, REFUND).await.unwrap();
    let second = async {
        say(&mut b, lock).await.unwrap();
        assert_eq!(ask(&mut b, REFUNDED).await, 0, "although A has committed");
        say(&mut b, REFUND).await.unwrap();
        b.commit().await.unwrap();
    };
    let first = async {
        until_somebody_waits(&bank.pool).await;
        a.commit().await.unwrap();
    };
    tokio::join!(first, second);
    assert_eq!(find(&bank.pool, REFUNDED).await, 120, "the damage: of 100, and no error");

    let refused = on(&bank.pool, "refund")
        .isolation(Isolation::RepeatableRead)
        .run(async |tx| tx.lock_one::<Account>("a").await.map(|_| ()))
        .await;
    assert!(matches!(refused, Err(Error::Misuse(Misuse::Lock { .. }))));
}

#[tokio::test]
async fn pitfall_4_a_sum_that_is_older_than_the_lock_refunds_too_much() {
    let bank = Bank::open(3).await;
    let lock = "SELECT 1 FROM accounts WHERE id = 'a' FOR NO KEY UPDATE";
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    let sum = ask(&mut a, REFUNDED).await;
    say(&mut b, lock).await.unwrap();
    say(&mut b, REFUND).await.unwrap();
    b.commit().await.unwrap();
    say(&mut a, lock).await.unwrap();
    assert_eq!(sum, 0, "by now it is 60");
    say(&mut a, REFUND).await.unwrap();
    a.commit().await.unwrap();
    assert_eq!(find(&bank.pool, REFUNDED).await, 120, "the damage: of 100, and with a lock");

    query(FORGET).execute(&bank.pool).await.unwrap();
    /// Cannot be called before the lock.
    async fn refunded<'b>(tx: &mut Tx<'b, Postgres>, _: &Locked<'b, Account>) -> Result<i64, sqlx::Error> {
        query_scalar(REFUNDED).fetch_one(&mut *tx).await
    }
    let mut b = begin(&bank.pool).await;
    say(&mut b, lock).await.unwrap();
    say(&mut b, REFUND).await.unwrap();
    let run = on(&bank.pool, "refund").run(async |tx| {
        let account = tx.lock_one::<Account>("a").await?;
        Ok::<_, LockError>(refunded(tx, &account).await? + 60 <= 100)
    });
    let other = async {
        until_somebody_waits(&bank.pool).await;
        b.commit().await.unwrap();
    };
    let (allowed, ()) = tokio::join!(run, other);
    assert!(!allowed.unwrap());
}

#[tokio::test]
async fn pitfall_6_read_compute_write_loses_an_update() {
    let bank = Bank::open(2).await;
    let balance = "SELECT balance FROM accounts WHERE id = 'a'";
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    assert_eq!((ask(&mut a, balance).await, ask(&mut b, balance).await), (100, 100));
    say(&mut a, "UPDATE accounts SET balance = 100 - 50 WHERE id = 'a'").await.unwrap();
    a.commit().await.unwrap();
    say(&mut b, "UPDATE accounts SET balance = 100 - 30 WHERE id = 'a'").await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(bank.balance("a").await, 70, "the damage: 50 and 30 of 100 leave 20");

    query("UPDATE accounts SET balance = 100 WHERE id = 'a'").execute(&bank.pool).await.unwrap();
    let run = async |amount: i64| {
        on(&bank.pool, "withdraw")
            .run(async |tx| {
                let account = tx.lock_one::<Account>("a").await?;
                let now: i64 = query_scalar(balance).fetch_one(&mut *tx).await?;
                query("UPDATE accounts SET balance = $1 WHERE id = $2")
                    .bind(now - amount)
                    .bind(account.key())
                    .execute(&mut *tx)
                    .await?;
                Ok::<_, LockError>(())
            })
            .await
    };
    let (one, two) = tokio::join!(run(50), run(30));
    one.unwrap();
    two.unwrap();
    assert_eq!(bank.balance("a").await, 20);
}

#[tokio::test]
async fn pitfall_7_an_unchecked_row_count_hides_a_failed_guard() {
    let bank = Bank::open(1).await;
    let guarded = "UPDATE accounts SET balance = balance - 60 WHERE id = 'b' AND balance >= 60";
    let mut naive = begin(&bank.pool).await;
    say(&mut naive, guarded).await.expect("the damage: no error, and nothing withdrawn");
    naive.commit().await.unwrap();
    assert_eq!(bank.balance("b").await, 0);

    let outcome = on(&bank.pool, "withdraw")
        .run(async |tx| {
            query(guarded).execute(&mut *tx).await?.expect_one()?;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::App(sqlx::Error::RowNotFound))));
}

#[tokio::test]
async fn pitfall_8_a_status_read_first_and_written_later_overwrites_another_one() {
    let bank = Bank::open(2).await;
    // 100 is "authorized", 1 is "captured", 2 is "voided".
    let status = "SELECT balance FROM accounts WHERE id = 'a'";
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    assert_eq!((ask(&mut a, status).await, ask(&mut b, status).await), (100, 100));
    say(&mut a, "UPDATE accounts SET balance = 1 WHERE id = 'a'").await.unwrap();
    a.commit().await.unwrap();
    say(&mut b, "UPDATE accounts SET balance = 2 WHERE id = 'a'").await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(bank.balance("a").await, 2, "the damage: captured, and then voided");

    query("UPDATE accounts SET balance = 100").execute(&bank.pool).await.unwrap();
    let both = Barrier::new(2);
    let run = async |new: i64| {
        on(&bank.pool, "status")
            .run(async |tx| {
                let found: i64 = query_scalar(status).fetch_one(&mut *tx).await?;
                both.wait().await;
                let guarded = "UPDATE accounts SET balance = $1 WHERE id = 'a' AND balance = $2";
                query(guarded).bind(new).bind(found).execute(&mut *tx).await?.expect_one()?;
                Ok::<_, sqlx::Error>(())
            })
            .await
    };
    let (one, two) = tokio::join!(run(1), run(2));
    let lost = [one.is_err(), two.is_err()];
    assert_eq!(lost.iter().filter(|lost| **lost).count(), 1, "one of them is told: {one:?} {two:?}");
}

#[tokio::test]
async fn pitfall_12_write_skew_breaks_a_rule_over_two_rows() {
    let bank = Bank::open(2).await;
    let refill = "UPDATE accounts SET balance = 100";
    // The rule: one account at least keeps money.
    let funded = "SELECT count(*) FROM accounts WHERE balance > 0";
    query(refill).execute(&bank.pool).await.unwrap();
    let (mut a, mut b) = (begin(&bank.pool).await, begin(&bank.pool).await);
    assert_eq!((ask(&mut a, funded).await, ask(&mut b, funded).await), (2, 2));
    say(&mut a, "UPDATE accounts SET balance = 0 WHERE id = 'a'").await.unwrap();
    say(&mut b, "UPDATE accounts SET balance = 0 WHERE id = 'b'").await.unwrap();
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(find(&bank.pool, funded).await, 0, "the damage");

    query(refill).execute(&bank.pool).await.unwrap();
    let both_counted = Barrier::new(2);
    let run = async |id: &str| {
        on(&bank.pool, "empty")
            .isolation(Isolation::Serializable)
            .run(async |tx| {
                let others: i64 = query_scalar(funded).fetch_one(&mut *tx).await?;
                if tx.attempt() == 1 {
                    both_counted.wait().await;
                }
                if others < 2 {
                    return Ok(false);
                }
                query("UPDATE accounts SET balance = 0 WHERE id = $1").bind(id).execute(&mut *tx).await?;
                Ok::<_, sqlx::Error>(true)
            })
            .await
    };
    let (one, two) = tokio::join!(run("a"), run("b"));
    assert_ne!(one.unwrap(), two.unwrap());
    assert_eq!(find(&bank.pool, funded).await, 1);
}
