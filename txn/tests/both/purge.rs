use std::time::Duration;

use probity_txn::{create_token_table, on, purge_tokens};

use super::{Bank, move_60};

const A_DAY: Duration = Duration::from_hours(24);

async fn tokens(bank: &Bank, like: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM probity_txn_tokens WHERE token LIKE $1")
        .bind(like)
        .fetch_one(&bank.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_purge_deletes_every_old_token_and_no_young_one() {
    let bank = Bank::open(2).await;
    create_token_table(&bank.pool).await.unwrap();
    assert_eq!(purge_tokens(&bank.pool, Duration::ZERO).await.unwrap(), 0, "an empty table");
    // More than two steps of the walk, young tokens among the old ones.
    sqlx::raw_sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
         INSERT INTO probity_txn_tokens (token, label, result, created_at)
         SELECT 'pay ' || i || ' old', 'pay', '1', '2020-01-01T00:00:00.000Z' FROM n",
    )
    .execute(&bank.pool)
    .await
    .unwrap();
    for number in 1..=30 {
        let run = on(&bank.pool, "pay").once(format!("pay {} young", number * 83));
        run.run(async |_tx| Ok::<_, sqlx::Error>(2)).await.unwrap();
    }

    assert_eq!(purge_tokens(&bank.pool, Duration::MAX).await.unwrap(), 0, "nothing is as old as that");
    assert_eq!(purge_tokens(&bank.pool, A_DAY).await.unwrap(), 2500);
    assert_eq!((tokens(&bank, "% old").await, tokens(&bank, "% young").await), (0, 30));
    assert_eq!(purge_tokens(&bank.pool, A_DAY).await.unwrap(), 0);

    let kept = on(&bank.pool, "pay").once("pay 83 young").run(async |_tx| Ok::<_, sqlx::Error>(3)).await;
    assert_eq!(kept.unwrap(), 2, "the result of the first run");
    let forgotten = on(&bank.pool, "pay").once("pay 7 old").run(async |_tx| Ok::<_, sqlx::Error>(3)).await;
    assert_eq!(forgotten.unwrap(), 3, "whose token was purged, runs again");
}

#[tokio::test]
async fn a_purge_leaves_the_token_of_an_open_run_alone() {
    let bank = Bank::open(2).await;
    create_token_table(&bank.pool).await.unwrap();
    let pool = bank.pool.clone();
    let seen = on(&bank.pool, "pay").once("open").run(async |tx| {
        move_60(tx).await?;
        let purged = purge_tokens(&pool, A_DAY).await?;
        Ok::<_, sqlx::Error>(purged)
    });
    assert_eq!(seen.await.unwrap(), 0);
    assert_eq!(tokens(&bank, "open").await, 1);
}
