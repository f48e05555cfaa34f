//! Answers that are not final: each retry gets the answer as of then, and the last one is recorded.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use probity_idempotency::layer::{ReplayBody, Verdict};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

/// A payment that goes on behind its handler, and the hook that renders it.
struct Payment {
    status: Mutex<&'static str>,
    renders: Semaphore,
    runs: AtomicU32,
}

impl Payment {
    fn in_processing() -> Arc<Self> {
        let (status, renders) = (Mutex::new("processing"), Semaphore::new(99));
        Arc::new(Self { status, renders, runs: AtomicU32::new(0) })
    }

    fn becomes(&self, status: &'static str) {
        *self.status.lock().unwrap() = status;
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

struct Render(Arc<Payment>);

#[async_trait]
impl Recover for Render {
    async fn recover(&self, _: &RecoverContext) -> Recovered {
        self.0.renders.acquire().await.unwrap().forget();
        match *self.0.status.lock().unwrap() {
            "processing" => Recovered::Pending(Recording::new(202).body("processing")),
            status => Recovered::Done(Recording::new(201).body(status)),
        }
    }
}

type Service = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, Infallible>;

/// The layer around a handler that says 202 and runs on behind it; or that dies before it answers.
fn service(layer: IdempotencyLayer, payment: &Arc<Payment>, dies: bool) -> Service {
    let payment = Arc::clone(payment);
    let handler = move |request: Request<ReplayBody<Full<Bytes>>>| {
        let (lease, payment) = (request.extensions().get::<Lease>().unwrap().clone(), Arc::clone(&payment));
        async move {
            payment.runs.fetch_add(1, Ordering::SeqCst);
            lease.effect_starting().await.unwrap();
            assert!(!dies, "the process dies here");
            let mut response = Response::new(Full::new(Bytes::from_static(b"processing")));
            *response.status_mut() = StatusCode::ACCEPTED;
            response.extensions_mut().insert(Verdict::Pending);
            Ok::<_, Infallible>(response)
        }
    };
    let service = ServiceBuilder::new().layer(layer).service_fn(handler);
    let whole = service.then(async |answer: Result<Response<ReplayBody<Full<Bytes>>>, Infallible>| {
        let (parts, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
        Ok(Response::from_parts(parts, body.collect().await.unwrap().to_bytes()))
    });
    BoxCloneSyncService::new(whole)
}

/// Sends the request with this body, and returns status, `Idempotency-Status`, `Idempotent-Replayed` and body.
async fn call(service: &Service, body: &'static str) -> (u16, String, bool, Bytes) {
    let request = Request::post("/").header("idempotency-key", "k").body(Full::from(body)).unwrap();
    let response = service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
    let status = response.headers()["idempotency-status"].to_str().unwrap().to_owned();
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status().as_u16(), status, replayed, response.into_body())
}

fn told(status: u16, word: &str, replayed: bool, body: &'static str) -> (u16, String, bool, Bytes) {
    (status, word.to_owned(), replayed, Bytes::from_static(body.as_bytes()))
}

fn layer(store: &Arc<FaultyStore>) -> IdempotencyLayer {
    let manager: Arc<dyn IdempotencyManager> = Arc::clone(store) as _;
    IdempotencyLayer::new(manager).single_tenant()
}

fn store() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())))
}

// proves: I-2, I-3, I-5
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_final_is_rendered_for_each_retry_until_it_is() {
    for (effects, dies) in [(Effects::Opaque, false), (Effects::Marked, false), (Effects::Opaque, true)] {
        let (store, payment) = (store(), Payment::in_processing());
        let layer = layer(&store).effects(effects).recover(Render(Arc::clone(&payment)));
        let service = service(layer, &payment, dies);
        let first = tokio::spawn({
            let service = service.clone();
            async move { call(&service, "{}").await }
        });
        match first.await {
            Ok(first) => assert_eq!(first, told(202, "pending", false, "processing")),
            Err(died) => assert!(dies && died.is_panic()),
        }
        for _ in 0..2 {
            assert_eq!(call(&service, "{}").await, told(202, "pending", true, "processing"));
        }
        assert_eq!(call(&service, "{\"other\":1}").await.0, 422);
        payment.becomes("success");
        for _ in 0..2 {
            assert_eq!(call(&service, "{}").await, told(201, "replayed", true, "success"));
            payment.becomes("refunded later");
        }
        assert_eq!(call(&service, "{\"other\":1}").await.0, 422);
        assert_eq!(payment.runs(), 1);
    }
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn of_two_retries_at_once_one_renders() {
    let (store, payment) = (store(), Payment::in_processing());
    let service = service(layer(&store).recover(Render(Arc::clone(&payment))), &payment, false);
    assert_eq!(call(&service, "{}").await.1, "pending");
    payment.renders.forget_permits(99);
    let renders = tokio::spawn({
        let service = service.clone();
        async move { call(&service, "{}").await }
    });
    sleep(Duration::from_millis(1)).await;
    let other = call(&service, "{}").await;
    assert_eq!((other.0, &other.1[..]), (409, "in-flight"));
    payment.becomes("success");
    payment.renders.add_permits(1);
    assert_eq!(renders.await.unwrap(), told(201, "replayed", true, "success"));
    assert_eq!(call(&service, "{}").await, told(201, "replayed", true, "success"));
    assert_eq!(payment.runs(), 1);
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn an_open_record_that_could_not_be_left_is_in_flight_until_its_lease_is_over() {
    let (store, payment) = (store(), Payment::in_processing());
    let service = service(layer(&store).recover(Render(Arc::clone(&payment))), &payment, false);
    store.fail(Call::Renew, Side::Before);
    assert_eq!(call(&service, "{}").await, told(202, "pending", false, "processing"));
    assert_eq!(call(&service, "{}").await.1, "in-flight");
    sleep(Duration::from_secs(31)).await;
    assert_eq!(call(&service, "{}").await, told(202, "pending", true, "processing"));
    assert_eq!(payment.runs(), 1);
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn an_outer_layer_does_not_record_what_the_inner_one_has_rendered() {
    let payment = Payment::in_processing();
    let hook = || Render(Arc::clone(&payment));
    let inner = service(layer(&store()).recover(hook()), &payment, false)
        .map_request(|request: Request<ReplayBody<Full<Bytes>>>| request.map(|_| Full::from("{}")))
        .map_response(|response| response.map(Full::new));
    let outer = layer(&store()).recover(hook()).key_header(HeaderName::from_static("outer-key"));
    let outer = ServiceBuilder::new().layer(outer).service(inner);
    for key in ["runs", "rendered-inside"] {
        let request = Request::post("/").header("idempotency-key", "k").header("outer-key", key);
        let answer = outer.clone().oneshot(request.body(Full::from("{}")).unwrap()).await;
        let response = answer.unwrap_or_else(|never| match never {});
        assert_eq!(
            (response.status().as_u16(), &response.headers()["idempotency-status"]),
            (202, &"pending".parse().unwrap())
        );
    }
    assert_eq!(payment.runs(), 1);
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn without_a_hook_the_answer_is_recorded_as_it_is() {
    let (store, payment) = (store(), Payment::in_processing());
    let service = service(layer(&store), &payment, false);
    assert_eq!(call(&service, "{}").await, told(202, "created", false, "processing"));
    assert_eq!(call(&service, "{}").await, told(202, "replayed", true, "processing"));
}
