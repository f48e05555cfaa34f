//! The layer in front of an axum handler, over the memory store: the answers on the wire, and the number of runs.
#![cfg(feature = "axum")]
#![cfg_attr(
    feature = "axum",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::{Request, Response, StatusCode};
use probity_idempotency::{
    Effects, IdempotencyLayer, Lease, MemoryStore, Policy, Refusal, Scope, layer::Verdict,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower::ServiceExt;

mod gateway;
#[cfg(feature = "testing")]
mod nested;
mod routing;
mod settings;
mod streams;

type Count = Arc<AtomicU32>;

fn layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Arc::new(MemoryStore::new())).scope(|parts| {
        let merchant = parts.headers.get("x-merchant").ok_or_else(Refusal::unauthenticated)?;
        Ok(Scope::new(merchant.to_str().unwrap_or_default())?)
    })
}

fn app(layer: IdempotencyLayer, count: &Count) -> Router {
    async fn pay(State(count): State<Count>, lease: Lease) -> (StatusCode, Json<Value>) {
        let run = count.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::task::yield_now().await;
        (StatusCode::CREATED, Json(json!({"run": run, "record": lease.record_id()})))
    }
    Router::new().route("/payments", post(pay)).layer(layer).with_state(Arc::clone(count))
}

fn request(key: Option<&str>, body: &str) -> Request<Body> {
    let mut request =
        Request::post("/payments").header("x-merchant", "m-1").body(Body::from(body.to_owned())).unwrap();
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    }
    request
}

async fn call(app: &Router, request: Request<Body>) -> Response<bytes::Bytes> {
    let (parts, body) =
        app.clone().oneshot(request).await.unwrap_or_else(|never: Infallible| match never {}).into_parts();
    Response::from_parts(parts, to_bytes(body, usize::MAX).await.unwrap())
}

fn problem(response: &Response<bytes::Bytes>) -> String {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let document: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(document["status"], response.status().as_u16());
    document["type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned()
}

// proves: I-2
#[tokio::test]
async fn a_retry_gets_the_first_answer_byte_for_byte_and_runs_nothing() {
    let count = Count::default();
    let app = app(layer(), &count);
    let first = call(&app, request(Some("k-1"), "{}")).await;
    assert_eq!(
        (first.status(), &first.headers()["idempotency-status"]),
        (StatusCode::CREATED, &"created".parse().unwrap())
    );
    for key in ["k-1", "\"k-1\""] {
        let again = call(&app, request(Some(key), "{}")).await;
        assert_eq!((again.status(), again.body()), (first.status(), first.body()));
        assert_eq!(again.headers()["content-type"], first.headers()["content-type"]);
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(again.headers()["idempotency-status"], "replayed");
        assert_eq!(again.headers()["cache-control"], "no-store");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn every_refusal_is_a_problem_document_with_its_own_type() {
    let count = Count::default();
    let app = app(layer().request_cap(16), &count);
    let _ = call(&app, request(Some("used"), "{}")).await;
    let mut repeated = request(Some("a"), "{}");
    repeated.headers_mut().append("idempotency-key", "b".parse().unwrap());
    let mut stranger = request(Some("a"), "{}");
    stranger.headers_mut().remove("x-merchant");
    let mut lying = request(Some("a"), "{}");
    lying.headers_mut().insert("content-length", "3".parse().unwrap());
    for (request, status, name) in [
        (request(None, "{}"), 400, "key-missing"),
        (request(Some(""), "{}"), 400, "key-malformed"),
        (request(Some("a;b"), "{}"), 400, "key-malformed"),
        (repeated, 400, "key-malformed"),
        (stranger, 401, "refused"),
        (request(Some("a"), "01234567890123456"), 413, "body-too-large"),
        (lying, 400, "body-incomplete"),
        (request(Some("used"), "{ }"), 422, "mismatch"),
    ] {
        let response = call(&app, request).await;
        assert_eq!((response.status().as_u16(), problem(&response).as_str()), (status, name));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "a refused request must not run");
}

// proves: I-8
#[tokio::test]
async fn the_same_key_of_two_merchants_is_two_payments() {
    let count = Count::default();
    let app = app(layer(), &count);
    let first = call(&app, request(Some("k"), "{}")).await;
    let mut other = request(Some("k"), "{}");
    other.headers_mut().insert("x-merchant", "m-2".parse().unwrap());
    let second = call(&app, other).await;
    assert_ne!(first.body(), second.body());
    assert!(!second.headers().contains_key("idempotent-replayed"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

// proves: I-1
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_clients_released_at_once_one_runs_and_all_that_are_answered_get_its_answer() {
    let count = Count::default();
    let app = app(layer(), &count);
    let barrier = Arc::new(Barrier::new(64));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (app, barrier) = (app.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                call(&app, request(Some("race"), "{}")).await
            })
        })
        .collect();
    let mut bodies = Vec::new();
    for client in clients {
        let response = client.await.unwrap();
        match response.status().as_u16() {
            201 => bodies.push(response.into_body()),
            409 => {
                assert_eq!(problem(&response), "in-flight");
                let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=5).contains(&wait));
            }
            other => panic!("unexpected {other}"),
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(call(&app, request(Some("race"), "{}")).await.into_body(), bodies[0]);
}

/// A handler that stops at a gate, so that a test can look at it from outside.
fn gated(layer: IdempotencyLayer, count: &Count) -> (Router, Arc<Barrier>) {
    let gate = Arc::new(Barrier::new(2));
    let (inside, count) = (Arc::clone(&gate), Arc::clone(count));
    let handler = move || async move {
        inside.wait().await;
        inside.wait().await;
        count.fetch_add(1, Ordering::SeqCst);
        (StatusCode::CREATED, "paid")
    };
    (Router::new().route("/payments", post(handler)).layer(layer), gate)
}

// proves: I-6
#[tokio::test]
async fn a_client_that_disconnects_does_not_cancel_the_payment() {
    let count = Count::default();
    let layer = layer();
    let tasks = layer.tasks();
    let (app, gate) = gated(layer, &count);
    let client = tokio::spawn({
        let app = app.clone();
        async move { call(&app, request(Some("k"), "{}")).await }
    });
    gate.wait().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    let meanwhile = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((meanwhile.status(), problem(&meanwhile).as_str()), (StatusCode::CONFLICT, "in-flight"));
    gate.wait().await;
    tasks.drain().await;
    let retry = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((retry.status(), &retry.body()[..]), (StatusCode::CREATED, &b"paid"[..]));
    assert_eq!(retry.headers()["idempotent-replayed"], "true");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// An app whose handler answers what `answer` says, every time it is run.
fn answering<F>(layer: IdempotencyLayer, count: &Count, answer: F) -> Router
where
    F: Fn() -> Response<Body> + Clone + Send + Sync + 'static,
{
    let count = Arc::clone(count);
    let handler = move || async move {
        count.fetch_add(1, Ordering::SeqCst);
        answer()
    };
    Router::new().route("/payments", post(handler)).layer(layer)
}

// proves: I-5
#[tokio::test]
async fn status_effects_and_verdict_of_an_answer_decide_the_next_try() {
    use Effects::{Local, Marked, Opaque};
    for (effects, status, verdict, runs) in [
        (Opaque, 500, None, 1),
        (Opaque, 503, None, 1),
        (Local, 500, None, 2),
        (Marked, 500, None, 2),
        (Opaque, 402, None, 1),
        (Opaque, 429, None, 2),
        (Opaque, 401, None, 2),
        (Opaque, 408, None, 1),
        (Local, 408, None, 2),
        (Opaque, 503, Some(Verdict::Retryable), 2),
        (Opaque, 504, Some(Verdict::Unknown), 1),
        (Opaque, 200, Some(Verdict::NoStore), 1),
    ] {
        let count = Count::default();
        let app = answering(layer().effects(effects), &count, move || {
            let mut response = Response::new(Body::from("answer"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(verdict) = verdict {
                response.extensions_mut().insert(verdict);
            }
            response
        });
        let first = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(first.status(), status);
        let second = call(&app, request(Some("k"), "{}")).await;
        assert_eq!(count.load(Ordering::SeqCst), runs, "{effects:?} {status} {verdict:?}");
        match verdict {
            None if runs == 1 && status == 408 => assert_eq!(problem(&second), "outcome-unknown"),
            Some(Verdict::Unknown) => assert_eq!(problem(&second), "outcome-unknown"),
            Some(Verdict::NoStore) => assert_eq!(problem(&second), "not-replayable"),
            _ => assert_eq!((second.status(), second.body()), (first.status(), first.body())),
        }
    }
}

// proves: I-10
#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_delivered_whole_and_never_run_again() {
    let big = "x".repeat(5000);
    let body = big.clone();
    let stream = move || {
        let chunks = [Ok::<_, Infallible>("a"), Ok("b")];
        let forever = futures_util::stream::iter(chunks);
        Response::new(Body::from_stream(futures_util::StreamExt::chain(
            forever,
            futures_util::stream::pending(),
        )))
    };
    let count = Count::default();
    let app = answering(layer().response_cap(4096), &count, move || {
        Response::builder()
            .status(201)
            .header("location", "/payments/1")
            .body(Body::from(body.clone()))
            .unwrap()
    });
    let first = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(first.body().len(), big.len(), "the first caller gets all of it");
    let second = call(&app, request(Some("k"), "{}")).await;
    assert_eq!((second.status(), problem(&second).as_str()), (StatusCode::CONFLICT, "not-replayable"));
    assert_eq!(second.headers()["location"], "/payments/1");
    assert_eq!(count.load(Ordering::SeqCst), 1);

    tokio::time::pause();
    let count = Count::default();
    let app = answering(layer(), &count, stream);
    let endless = app.clone().oneshot(request(Some("k"), "{}")).await.unwrap();
    let mut chunks = endless.into_body().into_data_stream();
    assert_eq!(futures_util::StreamExt::next(&mut chunks).await.unwrap().unwrap(), "a");
    let second = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(problem(&second), "not-replayable");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

// proves: I-5
#[tokio::test]
async fn a_panic_is_resumed_and_an_opaque_handler_is_not_run_again() {
    for (effects, runs) in [(Effects::Opaque, 1), (Effects::Local, 2)] {
        let count = Count::default();
        let app = answering(layer().effects(effects), &count, || panic!("boom"));
        for _ in 0..2 {
            let app = app.clone();
            let outcome = tokio::spawn(async move { call(&app, request(Some("k"), "{}")).await }).await;
            match outcome {
                Err(error) => assert!(error.is_panic()),
                Ok(response) => assert_eq!(problem(&response), "outcome-unknown"),
            }
        }
        assert_eq!(count.load(Ordering::SeqCst), runs, "{effects:?}");
    }
}

#[tokio::test]
async fn cookies_and_dates_are_not_replayed() {
    let count = Count::default();
    let app = answering(layer(), &count, || {
        let mut response = Response::new(Body::from("x"));
        for (name, value) in
            [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("date", "today"), ("etag", "\"1\"")]
        {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    });
    let first = call(&app, request(Some("k"), "{}")).await;
    assert_eq!(first.headers().get_all("set-cookie").iter().count(), 2);
    let second = call(&app, request(Some("k"), "{}")).await;
    assert!(!second.headers().contains_key("set-cookie") && !second.headers().contains_key("date"));
    assert_eq!(second.headers()["etag"], "\"1\"");
}

#[tokio::test]
async fn other_methods_and_optional_keys_pass_through_unguarded() {
    let count = Count::default();
    let app = answering(layer().key_required(false), &count, || Response::new(Body::from("x")));
    for _ in 0..2 {
        let response = call(&app, request(None, "{}")).await;
        assert!(!response.headers().contains_key("idempotency-status"));
    }
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

// proves: I-3
#[tokio::test]
async fn the_same_key_at_another_resource_under_a_cut_prefix_is_refused() {
    let count = Count::default();
    let app = Router::new().nest("/merchants/{id}", app(layer(), &count));
    let at = |merchant: &str| {
        let mut request = request(Some("k"), "{}");
        *request.uri_mut() = format!("/merchants/{merchant}/payments").parse().unwrap();
        request
    };
    let first = call(&app, at("A")).await;
    let again = call(&app, at("A")).await;
    assert_eq!((again.status(), again.body()), (StatusCode::CREATED, first.body()));
    let other = call(&app, at("B")).await;
    assert_eq!((other.status().as_u16(), problem(&other).as_str()), (422, "mismatch"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn each_route_may_have_a_policy_of_its_own() {
    let count = Count::default();
    let busy = || {
        let mut response = Response::new(Body::from("busy"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    };
    // One store, one scope, one set of tasks; what differs is said for each route.
    let all = layer();
    let local = all.clone().policy(Policy::default().effects(Effects::Local));
    let app = Router::new()
        .nest("/opaque", answering(all.clone(), &count, busy))
        .nest("/local", answering(local, &count, busy));
    for (path, again) in [("/opaque/payments", "replayed"), ("/local/payments", "released")] {
        for expected in ["", again] {
            let mut request = request(Some(path.trim_matches('/').split('/').next().unwrap()), "{}");
            *request.uri_mut() = path.parse().unwrap();
            let response = call(&app, request).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            if !expected.is_empty() {
                assert_eq!(response.headers()["idempotency-status"], expected, "{path}");
            }
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 3, "once behind the first, twice behind the second");
}

#[tokio::test]
async fn a_handler_may_ask_whether_it_has_a_lease() {
    async fn pay(lease: Option<Lease>) -> String {
        lease.is_some().to_string()
    }
    let app = Router::new().route("/payments", post(pay)).layer(layer().key_required(false));
    assert_eq!(call(&app, request(None, "{}")).await.body(), "false");
    assert_eq!(call(&app, request(Some("k"), "{}")).await.body(), "true");
}
