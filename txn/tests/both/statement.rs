//! Texts whose effect differs from their first words.

use futures_util::TryStreamExt as _;
use probity_txn::{Error, Misuse, on};

use super::Bank;

const TWO: &str = "UPDATE accounts SET balance = balance + 60 WHERE id = 'b' RETURNING balance;
                   UPDATE accounts SET balance = balance - 60 WHERE id = 'a'";

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(outcome: &Result<T, Error<sqlx::Error>>) {
    let Err(Error::Misuse(misuse)) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(misuse.to_string().contains("send one statement at a time"), "the remedy: {misuse}");
}

#[tokio::test]
async fn several_statements_are_refused_where_only_some_rows_are_read() {
    // proves: T-1
    let bank = Bank::open(1).await;
    let one = on(&bank.pool, "one").run(async |tx| {
        let _ = sqlx::raw_sql(TWO).fetch_one(&mut *tx).await;
        Ok::<_, sqlx::Error>(())
    });
    assert_refused(&one.await);
    let optional = on(&bank.pool, "optional").run(async |tx| {
        let _ = sqlx::raw_sql(TWO).fetch_optional(&mut *tx).await;
        Ok::<_, sqlx::Error>(())
    });
    assert_refused(&optional.await);
    let stream = on(&bank.pool, "stream").run(async |tx| {
        let _ = sqlx::raw_sql(TWO).fetch(&mut *tx).try_next().await;
        Ok::<_, sqlx::Error>(())
    });
    assert_refused(&stream.await);
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (100, 0));
}

#[tokio::test]
async fn several_statements_run_where_the_whole_answer_is_read() {
    // proves: T-1
    let bank = Bank::open(1).await;
    on(&bank.pool, "execute").run(async |tx| sqlx::raw_sql(TWO).execute(&mut *tx).await).await.unwrap();
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60));
    let overdraft = on(&bank.pool, "all").run(async |tx| sqlx::raw_sql(TWO).fetch_all(&mut *tx).await).await;
    assert!(matches!(overdraft, Err(Error::App(sqlx::Error::Database(_)))), "{overdraft:?}");
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (40, 60));
}

#[tokio::test]
async fn a_trailing_semicolon_is_not_a_second_statement() {
    let bank = Bank::open(1).await;
    let sum: i64 = on(&bank.pool, "sum")
        .run(async |tx| {
            let sum = "SELECT balance FROM accounts WHERE id <> ';' ORDER BY id; -- and no more; than that";
            sqlx::query_scalar(sum).fetch_one(&mut *tx).await
        })
        .await
        .unwrap();
    assert_eq!(sum, 100);
}

#[tokio::test]
async fn too_many_parameters_are_refused_and_do_not_count_as_a_lost_connection() {
    let bank = Bank::open(1).await;
    let attempts = std::sync::atomic::AtomicU32::new(0);
    let outcome = on(&bank.pool, "many")
        .run(async |tx| {
            attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut query = sqlx::QueryBuilder::<super::Database>::new("SELECT 1 WHERE 1 IN (");
            let mut list = query.separated(", ");
            for number in 0..65_536_i32 {
                list.push_bind(number);
            }
            query.push(")").build().execute(&mut *tx).await
        })
        .await;
    let Err(Error::Misuse(misuse @ Misuse::Parameters { .. })) = outcome else { panic!("{outcome:?}") };
    assert!(misuse.to_string().contains("in batches, or as one array"), "the remedy: {misuse}");
    assert_eq!(attempts.load(std::sync::atomic::Ordering::Relaxed), 1);
}
