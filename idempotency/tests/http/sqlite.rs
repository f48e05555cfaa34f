//! The layer and the business write in one database: the commit decides, and not the answer of the handler.
#![cfg(all(feature = "axum", feature = "sqlite"))]
#![cfg_attr(
    all(feature = "axum", feature = "sqlite"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{Request, StatusCode};
use probity_idempotency::{Effects, IdempotencyLayer, Lease, Recording, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Row, SqlitePool};
use tower::ServiceExt;

/// The end of the handler's first run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Well,
    FailsBeforeCommit,
    FailsAfterCommit,
    PanicsAfterCommit,
    RefusesAfterRollback,
}

async fn pay(State((pool, end)): State<(SqlitePool, End)>, lease: Lease) -> Response {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO payments (amount) VALUES (100)").execute(&mut *tx).await.unwrap();
    let answer =
        Recording::new(201).header("content-type", "text/plain").body(format!("paid by {}", lease.attempt()));
    if end == End::RefusesAfterRollback {
        tx.rollback().await.unwrap();
        return (StatusCode::PAYMENT_REQUIRED, "declined").into_response();
    }
    lease.complete_in(&mut *tx, &answer).await.unwrap();
    if end == End::FailsBeforeCommit && lease.attempt() == 1 {
        tx.rollback().await.unwrap();
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    tx.commit().await.unwrap();
    match end {
        End::FailsAfterCommit => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the reply was lost on the way").into_response()
        }
        End::PanicsAfterCommit => panic!("after commit"),
        _ => answer.into_response(),
    }
}

struct Platform {
    app: Router,
    pool: SqlitePool,
    _folder: tempfile::TempDir,
}

async fn platform(end: End) -> Platform {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE payments (amount INTEGER NOT NULL)").execute(&pool).await.unwrap();
    let store = Arc::new(SqliteStore::new(pool.clone()).await.unwrap());
    let layer = IdempotencyLayer::new(store).single_tenant().effects(Effects::Local);
    let app = Router::new().route("/payments", post(pay)).layer(layer).with_state((pool.clone(), end));
    Platform { app, pool, _folder: folder }
}

impl Platform {
    async fn call(&self) -> http::Response<Bytes> {
        let request =
            Request::post("/payments").header("idempotency-key", "k").body(Body::from("{}")).unwrap();
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        http::Response::from_parts(parts, to_bytes(body, usize::MAX).await.unwrap())
    }

    async fn payments(&self) -> i64 {
        sqlx::query("SELECT count(*) FROM payments").fetch_one(&self.pool).await.unwrap().get(0)
    }
}

// proves: I-2
// proves: I-4
#[tokio::test]
async fn a_payment_and_its_answer_are_one_commit_and_the_answer_is_replayed() {
    let platform = platform(End::Well).await;
    let first = platform.call().await;
    assert_eq!((first.status(), &first.body()[..]), (StatusCode::CREATED, &b"paid by 1"[..]));
    let second = platform.call().await;
    assert_eq!((second.status(), second.body()), (first.status(), first.body()));
    assert_eq!(second.headers()["idempotent-replayed"], "true");
    assert_eq!(platform.payments().await, 1);
}

// proves: I-4
#[tokio::test]
async fn a_payment_that_was_rolled_back_may_run_again() {
    let platform = platform(End::FailsBeforeCommit).await;
    assert_eq!(platform.call().await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let second = platform.call().await;
    assert_eq!((second.status(), &second.body()[..]), (StatusCode::CREATED, &b"paid by 2"[..]));
    assert_eq!(platform.payments().await, 1);
}

// proves: I-4
// proves: I-5
#[tokio::test]
async fn a_handler_that_fails_after_its_commit_cannot_take_the_payment_back() {
    let platform = platform(End::FailsAfterCommit).await;
    for _ in 0..2 {
        let answer = platform.call().await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::CREATED, &b"paid by 1"[..]));
    }
    assert_eq!(platform.payments().await, 1);
}

// proves: I-5
#[tokio::test]
async fn a_handler_that_panics_after_its_commit_has_paid_once() {
    let platform = Arc::new(platform(End::PanicsAfterCommit).await);
    let first = tokio::spawn({
        let platform = Arc::clone(&platform);
        async move { platform.call().await }
    });
    assert!(first.await.unwrap_err().is_panic());
    let second = platform.call().await;
    assert_eq!((second.status(), &second.body()[..]), (StatusCode::CREATED, &b"paid by 1"[..]));
    assert_eq!(platform.payments().await, 1);
}

#[tokio::test]
async fn a_refusal_after_a_rollback_is_final() {
    let platform = platform(End::RefusesAfterRollback).await;
    for _ in 0..2 {
        let answer = platform.call().await;
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::PAYMENT_REQUIRED, &b"declined"[..]));
    }
    assert_eq!(platform.payments().await, 0);
}
