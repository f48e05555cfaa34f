//! Rows that another transaction keeps locked, and callers that do not wait.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use futures_util::future::join_all;
use probity_idempotency::store::{Answer, Claim, Written};
use probity_idempotency::*;
use sqlx::postgres::PgPoolOptions;
use tokio::time::{Instant, timeout};

use super::{
    Database, KEPT, PATIENCE, a_claim, connect, database, locked_out, locked_out_now, recording, reported,
    retried,
};

// The first duplicate costs a shared statement its lock timeout. While it waits by itself, the next ones cost nothing.
#[tokio::test]
async fn a_call_that_waits_for_an_open_transaction_delays_no_other() {
    const ROUNDS: u32 = 60;
    let Database { pool, store, database } = database().await;
    let busy = a_claim(0);
    let mut tx = pool.begin().await.unwrap();
    assert!(matches!(store.claim_in(&mut *tx, &busy).await.unwrap(), Answer::Acquired(_)));
    let mut duplicates = Vec::new();
    for round in 0..ROUNDS {
        let (waiting, duplicate) = (store.clone(), retried(&busy));
        duplicates.push(tokio::spawn(async move { waiting.claim(&duplicate).await }));
        // It is queued, and the next statement would take it along.
        tokio::task::yield_now().await;
        let claims: Vec<Claim> = (0..8).map(|number| a_claim(1 + round * 8 + number)).collect();
        for answer in join_all(claims.iter().map(|claim| store.claim(claim))).await {
            assert!(matches!(answer.unwrap(), Answer::Acquired(_)));
        }
        let done = store.complete(&claims[0].holder(), &recording(1), KEPT).await.unwrap();
        assert_eq!(done, Written::Applied);
    }
    tx.commit().await.unwrap();
    for duplicate in duplicates {
        match duplicate.await.unwrap() {
            Ok(answer) => assert!(matches!(answer, Answer::InFlight { .. }), "{answer:?}"),
            Err(error) => {
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
            }
        }
    }
    let pool = reported(&database, [pool]).await;
    let refused = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let refused: i64 = sqlx::query_scalar(refused).fetch_one(&pool).await.unwrap();
    assert!(refused > 0, "nobody waited");
    assert!(refused < i64::from(ROUNDS) / 2, "{refused} statements waited in vain");
}

#[tokio::test]
async fn duplicates_of_a_locked_row_leave_connections_to_the_others_and_are_refused_in_the_end() {
    let Database { pool, store, database } = database().await;
    let (elsewhere, _) = connect(&database).await;
    let busy = a_claim(0);
    let mut tx = elsewhere.begin().await.unwrap();
    assert!(matches!(store.claim_in(&mut *tx, &busy).await.unwrap(), Answer::Acquired(_)));
    let duplicates: Vec<_> = (0..12)
        .map(|_| {
            let (store, duplicate) = (store.clone(), retried(&busy));
            tokio::spawn(async move { store.claim(&duplicate).await })
        })
        .collect();
    locked_out(&elsewhere, 1).await;
    for round in 0..8 {
        let claims: Vec<Claim> = (0..8).map(|number| a_claim(1 + round * 8 + number)).collect();
        let answers = join_all(claims.iter().map(|claim| store.claim(claim)));
        for answer in timeout(PATIENCE, answers).await.expect("the others are served") {
            assert!(matches!(answer.unwrap(), Answer::Acquired(_)));
        }
    }
    for duplicate in duplicates {
        let answer = timeout(PATIENCE, duplicate).await.expect("nobody waits for ever").unwrap();
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    }
    // A call that is never shared does not wait for ever either, whichever call it is.
    let (direct, holder) = (store.clone().direct(), busy.holder());
    tx.commit().await.unwrap();
    let mut tx = elsewhere.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM idempotency_records FOR UPDATE").execute(&mut *tx).await.unwrap();
    let (kept, late) =
        (recording(1), Tombstone { status: 201, location: None, reason: TombstoneReason::TooLarge });
    let refused = timeout(PATIENCE, async {
        tokio::join!(
            direct.claim(&busy),
            direct.renew(&holder, KEPT),
            direct.mark_effect(&holder),
            direct.complete(&holder, &kept, KEPT),
            direct.tombstone(&holder, &late, KEPT),
            direct.release(&holder),
        )
    });
    let (begun, renewed, marked, completed, buried, released) = refused.await.expect("refused");
    let errors = [begun.err(), renewed.err(), marked.err(), completed.err(), buried.err(), released.err()];
    for error in errors {
        let error = error.expect("the row is locked");
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    }
    tx.rollback().await.unwrap();
    assert!(matches!(store.claim(&retried(&busy)).await.unwrap(), Answer::InFlight { .. }));
    drop(pool);
}

#[tokio::test]
async fn calls_that_wait_for_locked_rows_take_a_quarter_of_the_pool_at_most() {
    let Database { store, database, .. } = database().await;
    let (elsewhere, _) = connect(&database).await;
    let rows: Vec<Claim> = (0..6).map(a_claim).collect();
    let mut tx = elsewhere.begin().await.unwrap();
    for row in &rows {
        assert!(matches!(store.claim_in(&mut *tx, row).await.unwrap(), Answer::Acquired(_)));
    }
    let duplicate = |row| {
        let (store, duplicate) = (store.clone(), retried(row));
        tokio::spawn(async move { store.claim(&duplicate).await })
    };
    let duplicates: Vec<_> = rows.iter().map(duplicate).collect();
    let mut most = 0;
    let give_up_at = Instant::now() + PATIENCE;
    while !duplicates.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(Instant::now() < give_up_at, "a duplicate waits for ever");
        most = most.max(locked_out_now(&elsewhere).await);
        tokio::task::yield_now().await;
    }
    for duplicate in duplicates {
        let error = duplicate.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    }
    assert_eq!(most, 2, "of a pool of eight");
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_is_not_sent() {
    let Database { store, database: _database, .. } = database().await;
    let (gone, staying) = (a_claim(1), a_claim(2));
    {
        let mut call = pin!(store.claim(&gone));
        assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
    }
    assert!(matches!(store.claim(&staying).await.unwrap(), Answer::Acquired(_)));
    assert_eq!(store.get(gone.record).await.unwrap(), None);
}

#[tokio::test]
async fn a_call_whose_caller_left_while_it_waited_for_a_connection_is_not_sent() {
    let Database { database, .. } = database().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    let (gone, staying) = (a_claim(1), a_claim(2));
    for somebody_stays in [false, true] {
        let taken = pool.acquire().await.unwrap();
        let mut stays = pin!(store.claim(&staying));
        {
            let mut call = pin!(store.claim(&gone));
            assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
            if somebody_stays {
                assert!(poll_fn(|cx| Poll::Ready(stays.as_mut().poll(cx).is_pending())).await);
            }
            // On one thread: the statement's turn comes now, and it waits for the connection.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        drop(taken);
        if somebody_stays {
            assert!(matches!(stays.await.unwrap(), Answer::Acquired(_)));
        }
        assert_eq!(store.get(gone.record).await.unwrap(), None);
    }
}
