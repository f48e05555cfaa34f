use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Effect, Error, Misuse, Policy, RollbackReason, create_token_table, on};
use tokio::sync::Barrier;

use super::{Bank, move_60, patient};

#[tokio::test]
async fn a_token_gives_one_execution_and_its_result_to_every_run() {
    let bank = Bank::open(2).await;
    create_token_table(&bank.pool).await.unwrap();
    create_token_table(&bank.pool).await.unwrap();
    let calls = AtomicU32::new(0);
    let run = async || {
        on(&bank.pool, "transfer")
            .once("PAY-1")
            .run(async |tx| {
                move_60(tx).await?;
                Ok::<_, sqlx::Error>(calls.fetch_add(1, Ordering::Relaxed))
            })
            .await
            .unwrap()
    };
    assert_eq!([run().await, run().await, run().await], [0, 0, 0]);
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn runs_with_one_token_at_the_same_time_take_effect_once() {
    let bank = Bank::open(4).await;
    create_token_table(&bank.pool).await.unwrap();
    let runs = (0..8).map(|number| {
        let pool = bank.pool.clone();
        tokio::spawn(async move {
            on(&pool, "transfer")
                .policy(patient())
                .once("PAY-2")
                .run(async |tx| {
                    sqlx::query("UPDATE accounts SET balance = balance + 1 WHERE id = 'b'")
                        .execute(&mut *tx)
                        .await?;
                    Ok::<_, sqlx::Error>(number)
                })
                .await
                .unwrap()
        })
    });
    let mut results = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        results.push(run.await.unwrap());
    }
    assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
    assert_eq!(bank.balance("b").await, 1);
}

#[tokio::test]
async fn a_stored_number_comes_back_to_the_last_bit() {
    // proves: T-6
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let number = 0.945_270_695_553_922_3_f64;
    for _ in 0..2 {
        let rate = on(&bank.pool, "rate").once("R-1").run(async |_tx| Ok::<_, sqlx::Error>(number)).await;
        assert_eq!(rate.unwrap().to_bits(), number.to_bits());
    }
}

#[tokio::test]
async fn a_refusal_is_not_stored_with_the_token() {
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let refused = on(&bank.pool, "transfer")
        .once("PAY-3")
        .run(async |_tx| Err::<i64, _>(sqlx::Error::RowNotFound))
        .await;
    assert!(matches!(refused, Err(Error::App(sqlx::Error::RowNotFound))));
    let accepted =
        on(&bank.pool, "transfer").once("PAY-3").run(async |_tx| Ok::<_, sqlx::Error>(5_i64)).await;
    assert_eq!(accepted.unwrap(), 5);
}

#[tokio::test]
async fn a_token_of_another_operation_or_type_is_refused() {
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    on(&bank.pool, "pay").once("T").run(async |_tx| Ok::<_, sqlx::Error>("text".to_owned())).await.unwrap();

    let other = on(&bank.pool, "refund").once("T").run(async |_tx| Ok::<_, sqlx::Error>(1)).await;
    let error = other.unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::TokenReused { label: "refund" })));
    assert_eq!(error.effect(), Effect::Unknown, "the label may have been renamed since");

    let unreadable = on(&bank.pool, "pay").once("T").run(async |_tx| Ok::<_, sqlx::Error>(1)).await;
    let error = unreadable.unwrap_err();
    assert!(matches!(error, Error::ResultUnreadable(_)));
    assert_eq!(error.effect(), Effect::Unknown);

    let empty = on(&bank.pool, "pay").once("").run(async |_tx| Ok::<_, sqlx::Error>(1)).await;
    assert!(matches!(empty, Err(Error::Misuse(Misuse::Token))));
}

#[tokio::test]
async fn a_run_that_ends_while_another_one_holds_its_token_does_not_say_that_nothing_happened() {
    // proves: T-6
    let impatient = |attempts, deadline| Policy {
        attempts,
        deadline: Duration::from_millis(deadline),
        lock_timeout: Some(Duration::from_millis(20)),
        ..Policy::payments()
    };
    // By its deadline; by its attempts, where the database's own timeout ends the wait; for want of a connection.
    let ways = [(2, impatient(u32::MAX, 300)), (2, impatient(1, 60_000)), (1, impatient(5, 100))];
    for (connections, policy) in ways {
        let bank = Bank::open(connections).await;
        create_token_table(&bank.pool).await.unwrap();
        let (inside, go_on) = (Barrier::new(2), Barrier::new(2));
        let first = on(&bank.pool, "transfer").policy(patient()).once("PAY-5").run(async |tx| {
            move_60(tx).await?;
            inside.wait().await;
            go_on.wait().await;
            Ok::<_, sqlx::Error>(1)
        });
        let second = async {
            inside.wait().await;
            let outcome = on(&bank.pool, "transfer")
                .policy(policy)
                .once("PAY-5")
                .run(async |_tx| Ok::<_, sqlx::Error>(2))
                .await;
            go_on.wait().await;
            outcome.unwrap_err()
        };
        let (first, error) = tokio::join!(first, second);
        assert_eq!(first.unwrap(), 1, "the first run is committed");
        assert_eq!(error.effect(), Effect::Unknown, "{error:?}");
        assert!(error.to_string().contains("ask again with the same token"), "the remedy: {error}");
        let again = on(&bank.pool, "transfer").once("PAY-5").run(async |_tx| Ok::<_, sqlx::Error>(3)).await;
        assert_eq!(again.unwrap(), 1, "who asks again gets the first run's result");
        assert_eq!(bank.balance("b").await, 60);
    }
}

#[tokio::test]
async fn concurrent_starts_create_one_token_table() {
    let bank = Bank::open(8).await;
    for _ in 0..10 {
        sqlx::raw_sql("DROP TABLE IF EXISTS probity_txn_tokens").execute(&bank.pool).await.unwrap();
        let start = std::sync::Arc::new(Barrier::new(8));
        let creators = (0..8).map(|_| {
            let (pool, start) = (bank.pool.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                create_token_table(&pool).await
            })
        });
        for creator in creators.collect::<Vec<_>>() {
            creator.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_run_without_its_token_table_does_not_start() {
    let bank = Bank::open(1).await;
    let calls = AtomicU32::new(0);
    let outcome = on(&bank.pool, "transfer")
        .once("PAY-4")
        .run(async |_tx| Ok::<_, sqlx::Error>(calls.fetch_add(1, Ordering::Relaxed)))
        .await;
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Unsettled { attempts: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("probity_txn_tokens"), "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    bank.assert_clean().await;
}

#[tokio::test]
async fn a_run_dropped_at_any_await_and_repeated_with_its_token_takes_effect_once() {
    // proves: T-6
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let add = "UPDATE accounts SET balance = balance + 1 WHERE id = 'b' RETURNING balance";
    for polls in 1.. {
        let run = || {
            on(&bank.pool, "add").once(format!("after {polls} polls")).run(async |tx| {
                tokio::task::yield_now().await;
                sqlx::query_scalar::<_, i64>(add).fetch_one(&mut *tx).await
            })
        };
        let finished = super::dropped::poll_then_drop(run(), polls).await.is_some();
        let (first, second) = (run().await.unwrap(), run().await.unwrap());
        assert_eq!((first, second), (i64::from(polls), i64::from(polls)));
        if finished {
            return;
        }
    }
}

#[tokio::test]
async fn a_result_that_changes_in_a_json_round_trip_is_refused_and_nothing_is_written() {
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let refused = on(&bank.pool, "transfer")
        .once("PAY-6")
        .run(async |tx| {
            move_60(tx).await?;
            Ok::<_, sqlx::Error>(Some(None::<i64>))
        })
        .await;
    assert!(matches!(refused, Err(Error::RolledBack(RollbackReason::ResultNotStored(_)))), "{refused:?}");
    assert_eq!(bank.balance("b").await, 0);
    let run = || on(&bank.pool, "transfer").once("PAY-6").run(async |_tx| Ok::<_, sqlx::Error>(None::<i64>));
    assert_eq!((run().await.unwrap(), run().await.unwrap()), (None, None), "the token is free");
}

#[tokio::test]
async fn a_temporary_table_is_not_taken_for_the_table_of_tokens() {
    // proves: T-6
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let pay = || on(&bank.pool, "pay").once("PAY-1").run(async |tx| move_60(tx).await);
    pay().await.unwrap();
    sqlx::raw_sql(
        "CREATE TEMP TABLE probity_txn_tokens (token TEXT PRIMARY KEY, label TEXT, result TEXT DEFAULT '')",
    )
    .execute(&bank.pool)
    .await
    .unwrap();
    pay().await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
}
