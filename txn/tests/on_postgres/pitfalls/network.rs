use probity_txn::on;

use sqlx::Connection as _;
use testkit::Cut;

use super::super::bank::is_clean;
use super::super::both::dropped::poll_then_drop;
use super::super::lost::{a_proxy, behind};
use super::*;

#[tokio::test]
async fn pitfall_19_a_lost_answer_taken_for_a_failure_pays_twice() {
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    let pay = "UPDATE counter SET n = n + 1";

    proxy.cut_next(Cut::BeforeTheAnswer);
    for attempt in 1..=2 {
        let mut naive = begin(&pool).await;
        say(&mut naive, pay).await.unwrap();
        // The COMMIT is sent in one query with a statement before it, so that the proxy recognises it.
        let answer = sqlx::raw_sql("SELECT 1; COMMIT").execute(&mut *naive).await;
        assert_eq!(answer.is_ok(), attempt == 2);
    }
    assert_eq!(find(&pool, "SELECT n FROM counter").await, 2, "the damage");

    proxy.cut_next(Cut::BeforeTheAnswer);
    on(&pool, "pay")
        .once("PAY-1")
        .run(async |tx| {
            query(pay).execute(&mut *tx).await?;
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(find(&pool, "SELECT n FROM counter").await, 3, "once");
}

#[tokio::test]
async fn pitfall_20_a_lost_answer_taken_for_a_success_pays_nothing() {
    let database = testkit::Postgres::shared().database();
    let proxy = a_proxy(database.url()).await;
    let pool = behind(&proxy, database.url()).await;
    let pay = "UPDATE counter SET n = n + 1";

    proxy.cut_next(Cut::BeforeTheServer);
    let mut naive = begin(&pool).await;
    say(&mut naive, pay).await.unwrap();
    let answer = sqlx::raw_sql("SELECT 1; COMMIT").execute(&mut *naive).await;
    let told = if matches!(answer, Err(sqlx::Error::Io(_))) { "paid, surely" } else { "refused" };
    drop(naive);
    assert_eq!((told, find(&pool, "SELECT n FROM counter").await), ("paid, surely", 0), "the damage");

    proxy.cut_next(Cut::BeforeTheServer);
    on(&pool, "pay").run(async |tx| query(pay).execute(&mut *tx).await).await.unwrap();
    assert_eq!(find(&pool, "SELECT n FROM counter").await, 1);
}

#[tokio::test]
async fn pitfall_22_a_cancelled_begin_leaves_its_transaction_to_the_next_borrower() {
    // proves: T-5
    let bank = Bank::open(1).await;
    {
        let mut connection = bank.pool.acquire().await.unwrap();
        // Slow to answer, so that the answer is not there when the future is dropped.
        let begin = connection.begin_with("BEGIN; SELECT pg_sleep(0.3)");
        assert!(poll_then_drop(begin, 1).await.is_none());
    }
    {
        let mut next = bank.pool.acquire().await.unwrap();
        assert!(!is_clean(&mut next).await, "the damage; if not, the driver has learnt to roll back");
        sqlx::raw_sql("ROLLBACK").execute(&mut *next).await.unwrap();
    }

    for polls in 1.. {
        let run = on(&bank.pool, "nothing").run(async |_tx| Ok::<_, sqlx::Error>(()));
        let finished = poll_then_drop(run, polls).await.is_some();
        bank.assert_clean().await;
        if finished {
            break;
        }
    }
}
