//! Requests that no client awaits any more: they run to their end wherever they were dropped, a panic among them ends
//! nothing else, and a shutdown waits for each.
#![cfg(feature = "tower")]
#![cfg_attr(
    feature = "tower",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::poll;
use http::{Request, Response};
use http_body_util::Full;
use probity_idempotency::layer::{ReplayBody, Tasks};
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, service_fn};

type Answer = Response<ReplayBody<Full<Bytes>>>;
type Calling = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// A layer over a handler that waits until it is let through, and then panics if it is to.
struct Guarded {
    call: Box<dyn Fn(&str) -> Calling>,
    tasks: Tasks,
    /// One handler ends for each permit.
    gate: Arc<Semaphore>,
    runs: Arc<AtomicU32>,
}

fn guarded(panics: bool) -> Guarded {
    let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant();
    let (tasks, gate, runs) = (layer.tasks(), Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let (waiting, counter) = (Arc::clone(&gate), Arc::clone(&runs));
    let service = layer.layer(service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let (waiting, counter) = (Arc::clone(&waiting), Arc::clone(&counter));
        async move {
            waiting.acquire().await.unwrap().forget();
            counter.fetch_add(1, Ordering::SeqCst);
            assert!(!panics, "as it was told to");
            Ok::<_, Infallible>(Response::new(Full::from("paid")))
        }
    }));
    Guarded { call: Box::new(move |key| calling(service.clone(), key)), tasks, gate, runs }
}

fn calling<S>(service: S, key: &str) -> Calling
where
    S: Service<Request<Full<Bytes>>, Response = Answer, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let request = Request::post("/").header("idempotency-key", key).body(Full::from("{}")).unwrap();
    Box::pin(service.oneshot(request))
}

impl Guarded {
    /// Starts a request, and gives it back once its handler waits.
    async fn started(&self, key: &str) -> Calling {
        let mut request = (self.call)(key);
        assert!(poll!(&mut request).is_pending());
        request
    }

    async fn status(&self, key: &str) -> String {
        let answer = (self.call)(key).await.unwrap_or_else(|never| match never {});
        answer.headers()["idempotency-status"].to_str().unwrap().to_owned()
    }
}

/// A limit that nothing reaches, however slow the machine is; without it a test would hang.
async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), awaited).await.unwrap()
}

// proves: I-6
#[tokio::test]
async fn a_request_that_is_dropped_outside_of_any_runtime_runs_to_its_end() {
    let guarded = guarded(false);
    let request = guarded.started("k").await;
    std::thread::spawn(move || drop(request)).join().unwrap();
    assert_eq!(guarded.tasks.running(), 1);
    guarded.gate.add_permits(1);
    soon(guarded.tasks.drain()).await;
    assert_eq!(guarded.status("k").await, "replayed");
    assert_eq!(guarded.runs.load(Ordering::SeqCst), 1);
}

// proves: I-5
// proves: I-6
#[tokio::test]
async fn a_handler_that_panics_in_the_background_is_settled_and_ends_nothing_else() {
    let guarded = guarded(true);
    drop(guarded.started("k").await);
    guarded.gate.add_permits(1);
    soon(guarded.tasks.drain()).await;
    assert_eq!(guarded.tasks.running(), 0);
    assert_eq!(guarded.status("k").await, "indeterminate");
    assert_eq!(guarded.runs.load(Ordering::SeqCst), 1);
}

// proves: I-6
#[tokio::test]
async fn a_shutdown_waits_for_every_request_with_or_without_a_client() {
    let guarded = guarded(false);
    // A layer that was drained takes requests again.
    for round in 0..2 {
        let kept = guarded.started(&format!("kept-{round}")).await;
        drop(guarded.started(&format!("dropped-{round}")).await);
        let kept = tokio::spawn(kept);
        let mut drained = std::pin::pin!(guarded.tasks.drain());
        assert!(poll!(&mut drained).is_pending());
        assert_eq!(guarded.tasks.running(), 2);
        guarded.gate.add_permits(1);
        soon(async {
            while guarded.tasks.running() == 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(poll!(&mut drained).is_pending(), "one of them still runs");
        guarded.gate.add_permits(1);
        soon(drained).await;
        assert_eq!(guarded.tasks.running(), 0);
        assert_eq!(soon(kept).await.unwrap().unwrap().headers()["idempotency-status"], "created");
        assert_eq!(guarded.status(&format!("dropped-{round}")).await, "replayed");
    }
}
