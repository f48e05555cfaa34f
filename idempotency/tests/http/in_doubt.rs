//! The layer where a mark or a settlement is refused, late, or sent twice. Plain tower, no axum.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use probity_idempotency::layer::{ReplayBody, Verdict};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tower::{Layer, Service, ServiceExt, service_fn};

fn stores() -> (Arc<FaultyStore>, Arc<dyn IdempotencyManager>) {
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    (Arc::clone(&faulty), faulty)
}

/// Sends the request, and returns the status, the header `Idempotency-Status` and the cookie.
async fn call<S, B>(service: &S) -> (u16, String, Option<String>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
{
    let request = Request::post("/").header("idempotency-key", "k").body(Full::from("{}")).unwrap();
    let response = service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), header("idempotency-status").unwrap(), header("set-cookie"))
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_mark_that_was_refused_leaves_the_key_free() {
    let (faulty, manager) = stores();
    let layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Marked);
    let paid = Arc::new(AtomicU32::new(0));
    let paying = Arc::clone(&paid);
    let service = layer.layer(service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let (lease, paid) = (request.extensions().get::<Lease>().unwrap().clone(), Arc::clone(&paying));
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if lease.effect_starting().await.is_err() {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            } else {
                paid.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, Infallible>(response)
        }
    }));
    for _ in 0..3 {
        faulty.fail(Call::MarkEffect, Side::Refused);
    }
    assert_eq!(call(&service).await, (503, "released".to_owned(), None));
    assert_eq!(call(&service).await, (200, "created".to_owned(), None));
    assert_eq!(paid.load(Ordering::SeqCst), 1);

    // One of the tries may have set the mark.
    let (faulty, manager) = stores();
    let layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Marked);
    let service = layer.layer(service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
        let lease = request.extensions().get::<Lease>().unwrap().clone();
        let error = lease.effect_starting().await.unwrap_err();
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        let verdict =
            if error.effect() == Effect::NotApplied { Verdict::Retryable } else { Verdict::Unknown };
        response.extensions_mut().insert(verdict);
        Ok::<_, Infallible>(response)
    }));
    for side in [Side::After, Side::Refused, Side::Refused] {
        faulty.fail(Call::MarkEffect, side);
    }
    assert_eq!(call(&service).await.1, "indeterminate");
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_late_mark_for_an_inner_layer_is_not_recorded_as_in_flight() {
    let (faulty, manager) = stores();
    let layer = || {
        let layer = IdempotencyLayer::new(Arc::clone(&manager)).single_tenant();
        layer.lease(Duration::from_secs(10)).store_timeout(Duration::from_secs(12))
    };
    let service = service_fn(async |_request: Request<ReplayBody<ReplayBody<Full<Bytes>>>>| {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = layer().effects(Effects::Marked).layer(layer().effects(Effects::Opaque).layer(service));
    // No renewal arrives. The mark is set, and its answer comes when the lease is over.
    faulty.fail(Call::Renew, Side::Silence);
    faulty.fail(Call::MarkEffect, Side::Late(Duration::from_secs(11)));
    assert_eq!(call(&service).await.1, "indeterminate");
    assert_eq!(call(&service).await.1, "indeterminate", "nothing was recorded");
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_late_mark_is_not_recorded_as_the_refusal_of_its_handler() {
    let (faulty, manager) = stores();
    let layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Marked);
    let layer = layer.lease(Duration::from_secs(10)).store_timeout(Duration::from_secs(12));
    let service = layer.layer(service_fn(|request: Request<ReplayBody<Full<Bytes>>>| {
        let lease = request.extensions().get::<Lease>().unwrap().clone();
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            if let Err(error) = lease.effect_starting().await {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                let nothing = error.effect() == Effect::NotApplied;
                let verdict = if nothing { Verdict::Retryable } else { Verdict::Unknown };
                response.extensions_mut().insert(verdict);
            }
            Ok::<_, Infallible>(response)
        }
    }));
    // No renewal arrives. The mark is set, and its answer comes when the lease is over.
    faulty.fail(Call::Renew, Side::Silence);
    faulty.fail(Call::MarkEffect, Side::Late(Duration::from_secs(11)));
    assert_eq!(call(&service).await.1, "indeterminate");
    assert_eq!(call(&service).await.1, "indeterminate", "nothing was recorded");
}

// proves: I-2
#[tokio::test]
async fn a_settlement_that_was_sent_twice_is_answered_as_one() {
    for (status, call_sent_twice, expected) in
        [(200, Call::Complete, "created"), (429, Call::Release, "released")]
    {
        let (faulty, manager) = stores();
        let layer = IdempotencyLayer::new(manager).single_tenant();
        let service = layer.layer(service_fn(move |_request: Request<ReplayBody<Full<Bytes>>>| async move {
            let response = Response::builder().status(status).header("set-cookie", "session=1");
            Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).unwrap())
        }));
        faulty.fail(call_sent_twice, Side::Repeated);
        let cookie = Some("session=1".to_owned());
        assert_eq!(call(&service).await, (status, expected.to_owned(), cookie));
    }
}
