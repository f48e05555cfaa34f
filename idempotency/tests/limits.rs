//! Durations at their ends: limits that never come, and terms that cannot be right.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

const ENDLESS: Duration = Duration::MAX;

fn endless() -> Policy {
    Policy::default().lease(ENDLESS).lease_cap(ENDLESS).retention(ENDLESS)
}

fn request() -> Request<Full<Bytes>> {
    Request::post("/").header("idempotency-key", "k").body(Full::from("{}")).unwrap()
}

async fn run(
    manager: &Arc<dyn IdempotencyManager>,
    policy: &Policy,
) -> Result<Execution<u8>, ExecuteError<StoreError>> {
    let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("k").unwrap());
    let print = Fingerprint::of(&HashKey::default(), &[b"order"]);
    execute(manager, &scope, &key, print, policy, async |_| Ok(7)).await
}

// proves: I-2
#[tokio::test]
async fn limits_without_end_are_no_panic_after_the_work_has_run() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let layer = IdempotencyLayer::new(manager)
        .single_tenant()
        .policy(endless())
        .response_patience(ENDLESS)
        .store_timeout(ENDLESS)
        .wait(ENDLESS, 4);
    let (started, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (starting, gate) = (Arc::clone(&started), Arc::clone(&go));
    let service = layer.layer(service_fn(move |_: Request<Full<Bytes>>| {
        let (starting, gate) = (Arc::clone(&starting), Arc::clone(&gate));
        async move {
            starting.add_permits(1);
            gate.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::new(Full::from("paid")))
        }
    }));
    let first = tokio::spawn(service.clone().oneshot(request()));
    // A first request that panicked never starts.
    let running = tokio::time::timeout(Duration::from_secs(60), started.acquire()).await;
    running.expect("the handler never started").unwrap().forget();
    let mut waiter = tokio::spawn(service.clone().oneshot(request()));
    // It waits; a waiter that panicked would be done.
    assert!(futures_util::poll!(&mut waiter).is_pending());
    tokio::task::yield_now().await;
    assert!(futures_util::poll!(&mut waiter).is_pending());
    go.add_permits(1);
    for (answer, status) in [(first.await, "created"), (waiter.await, "replayed")] {
        let response = answer.unwrap().unwrap_or_else(|never| match never {});
        assert_eq!(response.headers()["idempotency-status"], status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "paid");
    }
}

#[tokio::test]
async fn a_job_may_have_terms_without_end() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    for expected in [Execution::Fresh(7), Execution::Replayed(7)] {
        assert_eq!(run(&manager, &endless()).await.unwrap(), expected);
    }
}

/// Policies that cannot be right, and the method to change.
fn wrong() -> [(Policy, &'static str); 3] {
    [
        (Policy::default().retention(Duration::ZERO), "`retention`"),
        (Policy::default().lease(Duration::ZERO), "`lease`"),
        (Policy::default().lease_cap(Duration::from_secs(29)), "`lease_cap`"),
    ]
}

#[tokio::test]
async fn a_job_with_terms_that_cannot_be_right_is_not_run() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    for (policy, remedy) in wrong() {
        let Err(ExecuteError::NotRun(refused)) = run(&manager, &policy).await else {
            panic!("{policy:?} was run")
        };
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(why.contains(remedy), "{why}");
    }
}

#[test]
fn a_layer_with_terms_that_cannot_be_right_is_put_around_nothing() {
    for (policy, remedy) in wrong() {
        let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant().policy(policy);
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layer.layer(())));
        let why = *built.unwrap_err().downcast::<String>().unwrap();
        assert!(why.contains(remedy), "{why}");
    }
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn an_effect_does_not_start_when_the_lease_ended_while_the_store_was_asked() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    // No renewal arrives, and the mark only when the lease is over.
    store.fail(Call::Renew, Side::Silence);
    store.fail(Call::MarkEffect, Side::Silence);
    let layer = IdempotencyLayer::new(Arc::new(store))
        .single_tenant()
        .effects(Effects::Marked)
        .lease(Duration::from_secs(10))
        .store_timeout(Duration::from_secs(12));
    let service = layer.layer(service_fn(async |request: Request<Full<Bytes>>| {
        let lease = request.extensions().get::<Lease>().unwrap().clone();
        let started = lease.effect_starting().await;
        let answer = started.map_or_else(|error| format!("{:?}", error.kind()), |()| "started".to_owned());
        Ok::<_, Infallible>(Response::new(Full::from(answer)))
    }));
    let response = service.oneshot(request()).await.unwrap_or_else(|never| match never {});
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "LeaseLost");
}
