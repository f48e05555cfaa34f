use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use probity_txn::{Error, Misuse, Policy, create_token_table, on};

use super::{Bank, move_60};

#[tokio::test]
async fn a_read_only_run_reads_and_cannot_write() {
    let bank = Bank::open(1).await;
    let refused = on(&bank.pool, "report").read_only().run(async |tx| move_60(tx).await).await;
    assert!(matches!(refused, Err(Error::App(_))), "{refused:?}");
    let sum: i64 = on(&bank.pool, "report")
        .read_only()
        .run(async |tx| {
            sqlx::query_scalar("SELECT CAST(sum(balance) AS BIGINT) FROM accounts").fetch_one(&mut *tx).await
        })
        .await
        .unwrap();
    assert_eq!(sum, 100);
    // The connection forgets that it was read-only.
    on(&bank.pool, "transfer").run(async |tx| move_60(tx).await).await.unwrap();
}

#[tokio::test]
async fn no_more_runs_are_in_flight_than_the_label_allows() {
    let bank = Bank::open(4).await;
    let now = AtomicU32::new(0);
    let most = AtomicU32::new(0);
    let run = || {
        on(&bank.pool, "narrow").max_in_flight(2).read_only().run(async |tx| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sqlx::query("SELECT 1").execute(&mut *tx).await?;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, sqlx::Error>(())
        })
    };
    let (a, b, c, d) = tokio::join!(run(), run(), run(), run());
    for outcome in [a, b, c, d] {
        outcome.unwrap();
    }
    assert!(most.load(Ordering::SeqCst) <= 2);

    let none = on(&bank.pool, "narrow").max_in_flight(0).run(async |tx| move_60(tx).await).await;
    assert!(matches!(none, Err(Error::Misuse(Misuse::NothingInFlight))));
}

#[tokio::test]
async fn waiting_for_a_place_ends_with_the_deadline() {
    let bank = Bank::open(2).await;
    let (enter, entered) = tokio::sync::oneshot::channel::<()>();
    let enter = std::sync::Mutex::new(Some(enter));
    let slow = on(&bank.pool, "full").max_in_flight(1).read_only().run(async |_tx| {
        if let Some(enter) = enter.lock().unwrap().take() {
            let _ = enter.send(());
        }
        std::future::pending::<Result<(), sqlx::Error>>().await
    });
    let waiting = async {
        entered.await.unwrap();
        on(&bank.pool, "full")
            .max_in_flight(1)
            .deadline(Duration::from_millis(30))
            .run(async |tx| move_60(tx).await)
            .await
    };
    tokio::select! {
        _ = slow => panic!("the first run never ends"),
        outcome = waiting => assert!(matches!(outcome, Err(Error::Deadline { attempts: 0, .. }))),
    }
}

#[tokio::test]
async fn limits_without_an_end_are_limits() {
    let bank = Bank::open(1).await;
    create_token_table(&bank.pool).await.unwrap();
    let endless = Policy {
        deadline: Duration::MAX,
        commit_timeout: Duration::MAX,
        backoff_base: Duration::MAX,
        backoff_max: Duration::MAX,
        lock_timeout: Some(Duration::MAX),
        statement_timeout: Some(Duration::MAX),
        idle_timeout: Some(Duration::MAX),
        between_statements_warn: Duration::MAX,
        between_statements_max: Some(Duration::MAX),
        ..Policy::payments()
    };
    let run = || on(&bank.pool, "endless").policy(endless.clone()).max_in_flight(usize::MAX);
    run().run(async |tx| move_60(tx).await).await.unwrap();
    run().once("endless").run(async |_tx| Ok::<_, sqlx::Error>(())).await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn hooks_hold_no_place_among_the_runs_in_flight() {
    let bank = Bank::open(2).await;
    let (told, next) = tokio::sync::oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    on(&bank.pool, "hooked")
        .max_in_flight(1)
        .run(async |tx| {
            let (pool, told) = (bank.pool.clone(), told.lock().unwrap().take());
            tx.after_commit(async move {
                let next = on(&pool, "hooked").max_in_flight(1).deadline(Duration::from_secs(20));
                let outcome = next.run(async |_tx| Ok::<_, sqlx::Error>(())).await;
                let _ = told.unwrap().send(outcome.is_ok());
            });
            move_60(tx).await
        })
        .await
        .unwrap();
    assert!(next.await.unwrap(), "a hook can run what has the label of its run");
}
