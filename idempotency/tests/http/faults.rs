//! The layer when the store, the client or the handler misbehaves. Plain tower, no axum.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use probity_idempotency::layer::{ReplayBody, Verdict};
use probity_idempotency::store::{
    Answer, Claim, Fence, Holder, RecordId, Renewed, Resolution, Snapshot, Written,
};
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tower::{Service, ServiceBuilder, ServiceExt};

fn stores() -> (Arc<FaultyStore>, Arc<dyn IdempotencyManager>) {
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    (Arc::clone(&faulty), faulty)
}

fn request() -> Request<Full<Bytes>> {
    Request::post("/payments").header("idempotency-key", "k").body(Full::from("{}")).unwrap()
}

async fn call<S, B>(service: &S) -> Response<Bytes>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let (parts, body) =
        service.clone().oneshot(request()).await.unwrap_or_else(|never| match never {}).into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn type_of(response: &Response<Bytes>) -> String {
    let document: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    document["type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned()
}

/// A service that counts its runs and awaits `pauses` times in each.
macro_rules! counted {
    ($layer:expr, $runs:expr, $pauses:expr) => {{
        let runs = Arc::clone(&$runs);
        ServiceBuilder::new().layer($layer).service_fn(move |_request: Request<ReplayBody<Full<Bytes>>>| {
            let runs = Arc::clone(&runs);
            async move {
                for _ in 0..$pauses {
                    tokio::task::yield_now().await;
                }
                let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                Ok::<_, Infallible>(Response::new(Full::from(format!("run {run}"))))
            }
        })
    }};
}

// proves: I-9
#[tokio::test(start_paused = true)]
async fn without_a_store_nothing_runs_and_the_client_may_try_again() {
    for side in [Side::Before, Side::After, Side::Silence] {
        let (faulty, manager) = stores();
        let runs = Arc::new(AtomicU32::new(0));
        let service = counted!(IdempotencyLayer::new(manager).single_tenant(), runs, 1);
        faulty.fail(Call::Claim, side);
        faulty.fail(Call::Claim, side);
        let refused = call(&service).await;
        assert_eq!(
            (refused.status().as_u16(), type_of(&refused).as_str()),
            (503, "store-unavailable"),
            "{side:?}"
        );
        assert_eq!(refused.headers()["retry-after"], "1");
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(call(&service).await.body(), "run 1", "{side:?}");
    }
}

// proves: I-10
#[tokio::test(start_paused = true)]
async fn an_answer_the_store_does_not_take_is_sent_and_recorded_later() {
    for side in [Side::Before, Side::After, Side::Silence] {
        let (faulty, manager) = stores();
        let runs = Arc::new(AtomicU32::new(0));
        let layer = IdempotencyLayer::new(manager).single_tenant();
        let tasks = layer.tasks();
        let service = counted!(layer, runs, 1);
        for _ in 0..2 {
            faulty.fail(Call::Complete, side);
        }
        let first = call(&service).await;
        assert_eq!(
            (&first.body()[..], &first.headers()["idempotency-status"]),
            (&b"run 1"[..], &"unrecorded".parse().unwrap())
        );
        tasks.drain().await;
        let second = call(&service).await;
        assert_eq!(
            (&second.body()[..], &second.headers()["idempotent-replayed"]),
            (&b"run 1"[..], &"true".parse().unwrap())
        );
    }
}

// proves: I-1
#[tokio::test(start_paused = true)]
async fn the_lease_of_a_handler_that_blocked_is_renewed_while_its_answer_is_recorded_later() {
    let (faulty, manager) = stores();
    let runs = Arc::new(AtomicU32::new(0));
    let layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Local);
    let tasks = layer.tasks();
    let counter = Arc::clone(&runs);
    let service =
        ServiceBuilder::new().layer(layer).service_fn(move |_request: Request<ReplayBody<Full<Bytes>>>| {
            let counter = Arc::clone(&counter);
            async move {
                // The clock moves inside one poll, as it does while a thread is blocked.
                let _ = tokio::time::advance(Duration::from_secs(21)).now_or_never();
                let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
                Ok::<_, Infallible>(Response::new(Full::from(format!("run {run}"))))
            }
        });
    for _ in 0..18 {
        faulty.fail(Call::Complete, Side::Before);
    }
    assert_eq!(call(&service).await.headers()["idempotency-status"], "unrecorded");
    tokio::time::sleep(Duration::from_millis(9_500)).await;
    assert_eq!(tasks.running(), 1);
    assert_eq!(type_of(&call(&service).await), "in-flight");
    tasks.drain().await;
    assert_eq!(call(&service).await.body(), "run 1");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn a_lease_is_not_renewed_while_the_store_is_asked_to_end_it() {
    let (faulty, manager) = stores();
    let layer = IdempotencyLayer::new(manager).single_tenant();
    let service =
        ServiceBuilder::new().layer(layer).service_fn(async |_request: Request<ReplayBody<Full<Bytes>>>| {
            tokio::time::sleep(Duration::from_secs(9)).await;
            let mut response = Response::new(Full::from("who knows"));
            response.extensions_mut().insert(Verdict::Unknown);
            Ok::<_, Infallible>(response)
        });
    // The end of the lease is written, and its answer does not come for 5 s; a renewal is due after the first of them.
    faulty.fail(Call::Renew, Side::Unanswered);
    assert_eq!(call(&service).await.headers()["idempotency-status"], "indeterminate");
    assert_eq!(type_of(&call(&service).await), "outcome-unknown");
}

/// A store that lets its caller wait before and after every call, as a store behind a network does.
#[derive(Debug)]
struct Waiting(MemoryStore);

impl Waiting {
    async fn around<T>(call: impl Future<Output = T> + Send) -> T {
        tokio::task::yield_now().await;
        let answer = call.await;
        tokio::task::yield_now().await;
        answer
    }
}

#[async_trait]
impl IdempotencyManager for Waiting {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        Self::around(self.0.claim(claim)).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        Self::around(self.0.renew(holder, lease)).await
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        Self::around(self.0.mark_effect(holder)).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        kept: Duration,
    ) -> Result<Written, StoreError> {
        Self::around(self.0.complete(holder, recording, kept)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        kept: Duration,
    ) -> Result<Written, StoreError> {
        Self::around(self.0.tombstone(holder, tombstone, kept)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        Self::around(self.0.release(holder)).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        kept: Duration,
    ) -> Result<Written, StoreError> {
        Self::around(self.0.resolve(record, fence, resolution, kept)).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        Self::around(self.0.get(record)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        Self::around(self.0.purge(limit)).await
    }
}

// proves: I-6
// proves: I-2
#[tokio::test]
async fn a_client_may_leave_at_every_await_and_the_payment_happens_once() {
    const PAUSES: u32 = 6;
    let mut stayed = false;
    for polls in 0..40 {
        let manager: Arc<dyn IdempotencyManager> = Arc::new(Waiting(MemoryStore::new()));
        let runs = Arc::new(AtomicU32::new(0));
        let layer = IdempotencyLayer::new(manager).single_tenant();
        let tasks = layer.tasks();
        let service = counted!(layer, runs, PAUSES);
        {
            let mut leaving = pin!(call(&service));
            for _ in 0..polls {
                if poll_fn(|cx| Poll::Ready(leaving.as_mut().poll(cx).is_ready())).await {
                    stayed = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        tasks.drain().await;
        assert!(runs.load(Ordering::SeqCst) <= 1);
        assert_eq!(call(&service).await.body(), "run 1");
        assert_eq!(runs.load(Ordering::SeqCst), 1, "left after {polls} polls");
    }
    assert!(stayed, "the last clients saw the end: every await before it was left at");
}

// proves: I-6
#[tokio::test(start_paused = true)]
async fn an_outer_timeout_does_not_cancel_the_payment() {
    let (_, manager) = stores();
    let runs = Arc::new(AtomicU32::new(0));
    let layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Local);
    let tasks = layer.tasks();
    let counter = Arc::clone(&runs);
    let service =
        ServiceBuilder::new().layer(layer).service_fn(move |_request: Request<ReplayBody<Full<Bytes>>>| {
            let counter = Arc::clone(&counter);
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Response::new(Full::from("paid")))
            }
        });
    assert!(tokio::time::timeout(Duration::from_secs(1), call(&service)).await.is_err());
    assert_eq!(tasks.running(), 1);
    let meanwhile = call(&service).await;
    assert_eq!(
        (type_of(&meanwhile).as_str(), &meanwhile.headers()["retry-after"]),
        ("in-flight", &"5".parse().unwrap())
    );
    // This is longer than the lease, which is renewed although no client waits for the handler.
    tokio::time::sleep(Duration::from_secs(44)).await;
    assert_eq!(type_of(&call(&service).await), "in-flight");
    tasks.drain().await;
    assert_eq!(call(&service).await.body(), "paid");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// Answers what happened to the lost attempt.
struct Channel(Recovered);

#[async_trait]
impl Recover for Channel {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        assert_eq!(cx.payload(), "{}");
        self.0.clone()
    }
}

// proves: I-5
#[tokio::test]
async fn a_lost_request_is_settled_by_the_hook_or_refused() {
    for (says, status, body, runs_after) in [
        (None, 409, None, 1),
        (Some(Recovered::Unknown), 409, None, 1),
        (Some(Recovered::Done(Recording::new(201).body("found"))), 201, Some("found"), 1),
        (Some(Recovered::Absent), 200, Some("run 2"), 2),
    ] {
        let (_, manager) = stores();
        let mut layer = IdempotencyLayer::new(manager).single_tenant();
        if let Some(says) = says {
            layer = layer.recover(Channel(says));
        }
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        let service = ServiceBuilder::new().layer(layer).service_fn(
            move |_request: Request<ReplayBody<Full<Bytes>>>| {
                let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    assert!(run > 1, "the first attempt is lost");
                    Ok::<_, Infallible>(Response::new(Full::from(format!("run {run}"))))
                }
            },
        );
        let lost = tokio::spawn({
            let service = service.clone();
            async move { call(&service).await }
        });
        assert!(lost.await.unwrap_err().is_panic());
        let retry = call(&service).await;
        assert_eq!(retry.status(), status);
        match body {
            Some(body) => assert_eq!(retry.body(), body),
            None => assert_eq!(type_of(&retry), "outcome-unknown"),
        }
        assert_eq!(runs.load(Ordering::SeqCst), runs_after);
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_the_same_error_behind_the_layer() {
    for (effects, runs_after) in [(Effects::Local, 2), (Effects::Opaque, 1)] {
        let (_, manager) = stores();
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        let layer = IdempotencyLayer::new(manager).single_tenant().effects(effects);
        let service = ServiceBuilder::new().layer(layer).service_fn(
            move |_request: Request<ReplayBody<Full<Bytes>>>| {
                counter.fetch_add(1, Ordering::SeqCst);
                async { Err::<Response<Full<Bytes>>, _>(std::io::Error::other("down")) }
            },
        );
        assert_eq!(service.clone().oneshot(request()).await.unwrap_err().to_string(), "down");
        let second = service.clone().oneshot(request()).await;
        match effects {
            Effects::Local => assert_eq!(second.unwrap_err().to_string(), "down"),
            _ => assert_eq!(second.unwrap().status(), 409),
        }
        assert_eq!(runs.load(Ordering::SeqCst), runs_after);
    }
}

type Frames = Vec<Result<Frame<Bytes>, &'static str>>;

/// Answers the frames, each time anew.
async fn answered_twice(frames: fn() -> Frames) -> (Result<Bytes, &'static str>, Response<Bytes>, u32) {
    let (_, manager) = stores();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let layer = IdempotencyLayer::new(manager).single_tenant();
    let service =
        ServiceBuilder::new().layer(layer).service_fn(move |_request: Request<ReplayBody<Full<Bytes>>>| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::iter(frames()))))
            }
        });
    let first = service.clone().oneshot(request()).await.unwrap_or_else(|never| match never {});
    let first = first.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let second = call(&service).await;
    (first, second, runs.load(Ordering::SeqCst))
}

// proves: I-10
#[tokio::test]
async fn a_body_that_breaks_off_or_goes_on_after_its_trailers_leaves_a_tombstone() {
    let (first, second, runs) = answered_twice(|| vec![Ok(Frame::data("a".into())), Err("cut")]).await;
    assert_eq!((first.unwrap_err(), type_of(&second).as_str(), runs), ("cut", "not-replayable", 1));
    let (first, second, runs) = answered_twice(|| {
        let trailers = http::HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        vec![Ok(Frame::data("a".into())), Ok(Frame::trailers(trailers)), Ok(Frame::data("b".into()))]
    })
    .await;
    assert_eq!((first.unwrap(), type_of(&second).as_str(), runs), ("ab".into(), "not-replayable", 1));
}

// proves: I-2
#[tokio::test]
async fn a_body_of_several_frames_is_replayed_whole() {
    let (first, second, runs) = answered_twice(|| {
        vec![Ok(Frame::data("a".into())), Ok(Frame::data(Bytes::new())), Ok(Frame::data("b".into()))]
    })
    .await;
    assert_eq!((first.unwrap(), second.body(), runs), ("ab".into(), &Bytes::from("ab"), 1));
}

#[tokio::test]
async fn an_upload_that_breaks_off_claims_nothing() {
    let (_, manager) = stores();
    let layer = IdempotencyLayer::new(manager).single_tenant().request_cap(8);
    let service =
        ServiceBuilder::new().layer(layer).service_fn(async |request: Request<ReplayBody<Upload>>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Full::from(body)))
        });
    for (upload, status) in
        [(Upload(Err("cut")), 400), (Upload(Ok("123456789".into())), 413), (Upload(Ok("1".into())), 200)]
    {
        let request = Request::post("/").header("idempotency-key", "k").body(upload).unwrap();
        let answer = service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), status);
    }
}

/// A body of unknown length that ends in data or in an error.
struct Upload(Result<Bytes, &'static str>);

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        match std::mem::replace(&mut self.0, Ok(Bytes::new())) {
            Ok(bytes) if bytes.is_empty() => Poll::Ready(None),
            Ok(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(cut) => Poll::Ready(Some(Err(cut))),
        }
    }
}
