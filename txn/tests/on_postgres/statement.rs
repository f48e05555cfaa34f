//! Tests that the guard on transaction control reads strings and comments as PostgreSQL does.

use probity_txn::{Error, on};

use super::Bank;

#[tokio::test]
async fn a_commit_behind_a_string_with_escapes_or_a_nested_comment_is_refused() {
    // proves: T-1
    let bank = Bank::open(1).await;
    for hidden in [
        r"SELECT E'it\'s'; COMMIT",
        "/* a /* b */ c */ COMMIT",
        "CREATE FUNCTION one() RETURNS int AS 'SELECT 1' LANGUAGE sql; COMMIT",
    ] {
        let outcome = on(&bank.pool, "hidden")
            .run(async |tx| {
                sqlx::query("UPDATE accounts SET balance = 7 WHERE id = 'b'").execute(&mut *tx).await?;
                let _ = sqlx::raw_sql(hidden).execute(&mut *tx).await;
                Ok::<_, sqlx::Error>(())
            })
            .await;
        let Err(Error::Misuse(misuse)) = outcome else {
            panic!("{hidden}: {outcome:?}");
        };
        assert!(misuse.to_string().contains("the runner begins and ends"), "{hidden}: {misuse}");
        assert_eq!(bank.balance("b").await, 0, "{hidden}");
    }
}

#[tokio::test]
async fn a_string_with_escapes_may_mention_a_commit() {
    let bank = Bank::open(1).await;
    let text: String = on(&bank.pool, "text")
        .run(async |tx| sqlx::query_scalar(r"SELECT E'it\'s; commit'").fetch_one(&mut *tx).await)
        .await
        .unwrap();
    assert_eq!(text, "it's; commit");
}
