use std::time::Duration;

use probity_txn::{Error, Misuse, Policy, RollbackReason, on};

use super::{Bank, move_60};

/// 65 characters.
const TOO_LONG: &str = "a.label.that.would.have.to.be.cut.by.whoever.stores.it.as.metrics";

#[tokio::test]
async fn a_run_inside_a_run_is_refused_even_with_one_connection() {
    let bank = Bank::open(1).await;
    let outer = on(&bank.pool, "outer")
        .run(async |_tx| on(&bank.pool, "inner").run(async |tx| move_60(tx).await).await);
    let outcome = Box::pin(outer).await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Nested { outer: "outer", inner: "inner" }))));
}

#[tokio::test]
async fn a_swallowed_refusal_of_a_nested_run_fails_the_outer_run() {
    let bank = Bank::open(1).await;
    let outer = on(&bank.pool, "outer").run(async |tx| {
        move_60(tx).await?;
        let _ = on(&bank.pool, "inner").run(async |tx| move_60(tx).await).await;
        Ok::<_, sqlx::Error>(())
    });
    let outcome = Box::pin(outer).await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Nested { .. }))), "{outcome:?}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn a_run_inside_a_run_in_a_task_of_its_own_ends_with_its_deadline_and_does_not_hang() {
    let bank = Bank::open(1).await;
    let pool = bank.pool.clone();
    on(&bank.pool, "outer")
        .run(async |_tx| {
            let pool = pool.clone();
            // A task of its own does not know that it runs inside; the only connection is taken all the same.
            let inner = tokio::spawn(async move {
                let short = Duration::from_millis(50);
                on(&pool, "inner").deadline(short).run(async |tx| move_60(tx).await).await
            });
            let refused = inner.await.unwrap();
            assert!(matches!(refused, Err(Error::Deadline { attempts: 1, .. })), "{refused:?}");
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn impossible_settings_are_refused_before_anything_runs() {
    let bank = Bank::open(1).await;
    let refusals = [
        on(&bank.pool, "").run(async |tx| move_60(tx).await).await,
        on(&bank.pool, "payment of 12 €").run(async |tx| move_60(tx).await).await,
        on(&bank.pool, TOO_LONG).run(async |tx| move_60(tx).await).await,
    ];
    for refusal in refusals {
        let error = refusal.unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::Label { .. })), "{error:?}");
        assert!(error.to_string().contains("must have 1 to 64 characters"), "the remedy: {error}");
    }
    on(&bank.pool, &TOO_LONG[1..]).run(async |_tx| Ok::<_, sqlx::Error>(())).await.expect("64 are allowed");
    let none = on(&bank.pool, "transfer").attempts(0).run(async |tx| move_60(tx).await).await.unwrap_err();
    assert!(matches!(none, Error::Misuse(Misuse::NoAttempts)), "{none:?}");
    assert!(none.to_string().contains("allow at least one"), "the remedy: {none}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn text_that_would_end_the_transaction_is_refused_and_nothing_is_committed() {
    // proves: T-1
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "transfer")
        .run(async |tx| {
            move_60(tx).await?;
            let _ = sqlx::raw_sql("SELECT 1; COMMIT").execute(&mut *tx).await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Statement { .. }))), "{outcome:?}");
    assert_eq!(bank.balance("a").await, 100);
}

#[tokio::test]
async fn time_between_the_statements_can_be_limited() {
    let bank = Bank::open(1).await;
    let policy = Policy { between_statements_max: Some(Duration::from_millis(20)), ..Policy::payments() };
    let outcome = on(&bank.pool, "transfer")
        .policy(policy)
        .run(async |tx| {
            move_60(tx).await?;
            // Stands for the call of another service.
            tokio::time::sleep(Duration::from_millis(40)).await;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::RolledBack(RollbackReason::BetweenStatements { .. }))));
    assert_eq!(bank.balance("a").await, 100);
}
