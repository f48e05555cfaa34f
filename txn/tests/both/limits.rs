use std::future::Future as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use probity_txn::{Error, Misuse, Policy, create_token_table, on};
use tokio::sync::oneshot;

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
async fn waiting_for_a_permit_ends_with_the_deadline() {
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
        outcome = waiting => {
            let error = outcome.unwrap_err();
            assert!(matches!(error, Error::Deadline { attempts: 0, .. }), "{error:?}");
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("max_in_flight"), "{error}");
        }
    }
}

#[tokio::test]
async fn unlimited_durations_are_accepted() {
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
async fn hooks_hold_no_permit() {
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

#[tokio::test]
async fn a_dropped_run_holds_its_permit_until_it_is_rolled_back() {
    // proves: T-5
    let bank = Bank::open(2).await;
    let both = (bank.pool.acquire().await.unwrap(), bank.pool.acquire().await.unwrap());
    drop(both);
    let limit = tokio::time::Instant::now() + Duration::from_secs(60);
    while bank.pool.num_idle() < 2 {
        assert!(tokio::time::Instant::now() < limit, "connections come back to the pool");
        tokio::task::yield_now().await;
    }
    let (inside, is_inside) = oneshot::channel();
    let inside = std::sync::Mutex::new(Some(inside));
    let mut first = Box::pin(on(&bank.pool, "dropped").max_in_flight(1).run(async |tx| {
        move_60(tx).await?;
        let _ = inside.lock().unwrap().take().unwrap().send(());
        std::future::pending::<Result<(), sqlx::Error>>().await
    }));
    tokio::select! {
        _ = &mut first => panic!("the first run never ends"),
        told = is_inside => told.unwrap(),
    }
    let mut second = Box::pin(on(&bank.pool, "dropped").max_in_flight(1).run(async |tx| move_60(tx).await));
    drop(first);
    // This task has not paused since, so the run is not rolled back yet.
    let polled = std::future::poll_fn(|context| Poll::Ready(second.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    assert_eq!(bank.pool.num_idle(), 1, "the second run has not even asked for a connection");
    second.await.unwrap();
    assert_eq!(bank.balance("b").await, 60);
}
