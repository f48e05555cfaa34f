//! Wait mode: a duplicate of a running request may wait for its answer.
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
use http_body_util::{BodyExt, Full};
use probity_idempotency::layer::{ReplayBody, Tasks};
use probity_idempotency::testing::HistoryStore;
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

type App = BoxCloneSyncService<Request<Full<Bytes>>, Response<ReplayBody<Full<Bytes>>>, Infallible>;

/// A service over the store that runs until it is let go, and answers its runs in turn with these statuses.
struct Platform {
    app: App,
    tasks: Tasks,
    runs: Arc<AtomicU32>,
    go: Arc<Semaphore>,
}

fn platform(
    manager: Arc<dyn IdempotencyManager>,
    waiters: Option<usize>,
    statuses: &'static [u16],
) -> Platform {
    let mut layer = IdempotencyLayer::new(manager).single_tenant().effects(Effects::Local);
    if let Some(waiters) = waiters {
        layer = layer.wait(Duration::from_secs(2), waiters);
    }
    let (runs, go, tasks) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)), layer.tasks());
    let (counter, gate) = (Arc::clone(&runs), Arc::clone(&go));
    let app = ServiceBuilder::new().layer(layer).service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            let mut response = Response::new(Full::from(format!("run {run}")));
            *response.status_mut() = StatusCode::from_u16(statuses[run as usize - 1]).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Platform { app: BoxCloneSyncService::new(app), tasks, runs, go }
}

impl Platform {
    fn call(&self) -> tokio::task::JoinHandle<(u16, Bytes)> {
        let app = self.app.clone();
        tokio::spawn(async move {
            let request = Request::post("/").header("idempotency-key", "k").body(Full::from("{}")).unwrap();
            let (parts, body) =
                app.oneshot(request).await.unwrap_or_else(|never| match never {}).into_parts();
            (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
        })
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

/// Lets every task get as far as it can; time stands still otherwise.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

// proves: I-2
#[tokio::test(start_paused = true)]
async fn waiters_get_the_answer_when_it_is_there_and_ask_the_store_twice() {
    let history = Arc::new(HistoryStore::new(Arc::new(MemoryStore::new())));
    let platform = platform(history.clone(), Some(64), &[201]);
    let first = platform.call();
    settle().await;
    let waiters: Vec<_> = (0..20).map(|_| platform.call()).collect();
    sleep(Duration::from_millis(1500)).await;
    let asked = history.calls();
    platform.go.add_permits(1);
    let started = Instant::now();
    for caller in waiters.into_iter().chain([first]) {
        assert_eq!(caller.await.unwrap(), (201, Bytes::from("run 1")));
    }
    assert!(started.elapsed() < Duration::from_millis(10), "they were woken, and did not poll");
    assert_eq!((asked, history.calls()), (1 + 20 * 2, 1 + 20 * 2 + 1 + 20), "claims, before and after");
    assert_eq!(platform.runs(), 1);
    history.check().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_409_when_its_time_runs_out() {
    let platform = platform(Arc::new(MemoryStore::new()), Some(64), &[201]);
    let first = platform.call();
    settle().await;
    let started = Instant::now();
    let (status, body) = platform.call().await.unwrap();
    assert!(status == 409 && body.windows(9).any(|part| part == b"in-flight"));
    let waited = started.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(3), "{waited:?}");
    platform.go.add_permits(1);
    assert_eq!(first.await.unwrap().0, 201);
}

#[tokio::test(start_paused = true)]
async fn duplicates_wait_only_if_configured_and_up_to_the_limit() {
    for (seats, waiting) in [(None, 0), (Some(0), 0), (Some(2), 2)] {
        let platform = platform(Arc::new(MemoryStore::new()), seats, &[201]);
        let first = platform.call();
        settle().await;
        let others: Vec<_> = (0..5).map(|_| platform.call()).collect();
        settle().await;
        assert_eq!(others.iter().filter(|other| !other.is_finished()).count(), waiting, "{seats:?}");
        platform.go.add_permits(1);
        assert_eq!(first.await.unwrap().0, 201);
        let mut statuses = Vec::new();
        for other in others {
            statuses.push(other.await.unwrap().0);
        }
        statuses.sort_unstable();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), waiting);
        assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
        // The seats are free again.
        assert_eq!(platform.call().await.unwrap().0, 201);
    }
}

// proves: I-6
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_stops_waiting() {
    let platform = platform(Arc::new(MemoryStore::new()), Some(1), &[201]);
    let first = platform.call();
    settle().await;
    let leaving = platform.call();
    settle().await;
    assert_eq!(platform.tasks.running(), 2);
    leaving.abort();
    settle().await;
    assert_eq!(platform.tasks.running(), 1, "only the payment runs on");
    let next = platform.call();
    settle().await;
    platform.go.add_permits(1);
    assert_eq!(next.await.unwrap(), (201, Bytes::from("run 1")), "its seat was free");
    assert_eq!((first.await.unwrap().0, platform.runs()), (201, 1));
}

// proves: I-1
#[tokio::test(start_paused = true)]
async fn one_waiter_runs_when_the_first_request_released_its_key() {
    let platform = platform(Arc::new(MemoryStore::new()), Some(64), &[503, 201]);
    let first = platform.call();
    settle().await;
    let waiters: Vec<_> = (0..4).map(|_| platform.call()).collect();
    settle().await;
    platform.go.add_permits(2);
    assert_eq!(first.await.unwrap(), (503, Bytes::from("run 1")));
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), (201, Bytes::from("run 2")));
    }
    assert_eq!(platform.runs(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_lost_its_lease_does_not_take_the_waiters_of_the_next_one() {
    let platform = platform(Arc::new(MemoryStore::new()), Some(64), &[201, 201]);
    let zombie = platform.call();
    // Past the end of all renewals.
    sleep(Duration::from_secs(301)).await;
    let heir = platform.call();
    settle().await;
    platform.go.add_permits(1);
    assert_eq!(zombie.await.unwrap(), (201, Bytes::from("run 1")));
    let waiter = platform.call();
    sleep(Duration::from_millis(400)).await;
    platform.go.add_permits(1);
    let started = Instant::now();
    assert_eq!(waiter.await.unwrap(), (201, Bytes::from("run 2")));
    assert!(started.elapsed() < Duration::from_millis(10), "it was woken by the heir, and did not poll");
    assert_eq!(heir.await.unwrap(), (201, Bytes::from("run 2")));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_polls_for_a_request_of_another_process_at_growing_intervals() {
    let history = Arc::new(HistoryStore::new(Arc::new(MemoryStore::new())));
    // Two independent layers stand for two processes: their waiters do not know each other.
    let (there, here) = (platform(history.clone(), None, &[201]), platform(history.clone(), Some(64), &[]));
    let first = there.call();
    settle().await;
    let waiter = here.call();
    sleep(Duration::from_millis(1200)).await;
    there.go.add_permits(1);
    assert_eq!(first.await.unwrap().0, 201);
    let started = Instant::now();
    assert_eq!(waiter.await.unwrap(), (201, Bytes::from("run 1")));
    assert!(started.elapsed() <= Duration::from_millis(500));
    // The first claim and its completion; the waiter's first two, and at 25, 75, 175, 375, 775 and 1275 ms.
    assert_eq!((history.calls(), here.runs()), (2 + 2 + 6, 0));
}
