//! The layer before an axum handler that does nothing: in the process, to see what it adds; and over real connections,
//! to see what share of the bare handler's requests is left.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request};
use axum::routing::post;
use probity_idempotency::{IdempotencyLayer, MemoryStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Mutex};
use tokio::time::Instant;
use tower::ServiceExt;

use super::calls::{BODY, Manager};
use super::contest::{Contender, contest, median, table};
use super::memory;
use crate::closed_loop::{Rounds, say};

/// The most callers; each has a connection of its own.
const CONNECTIONS: usize = 256;
/// The number of callers that race for one key.
const RACERS: usize = 64;

/// Both sides read the body: the layer has to.
fn bare() -> Router {
    Router::new().route("/payments", post(async |_body: Bytes| BODY))
}

fn guarded() -> Router {
    bare().layer(IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant())
}

pub(super) async fn measure(rounds: Rounds) {
    in_process(rounds).await;
    over_http(rounds).await;
}

/// One request after another, without a network: the difference is the layer's, beside its store's.
async fn in_process(rounds: Rounds) {
    const CALLS: u32 = 20_000;
    let calls = if rounds.number == 1 { CALLS / 100 } else { CALLS };
    let manager: Manager = Arc::new(MemoryStore::new());
    // As `axum::serve` does for a connection: otherwise axum puts the layer around the handler anew for each request.
    let (bare, guarded) = (bare().with_state(()), guarded().with_state(()));
    let (mut alone, mut layered, mut replayed, mut stored) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds.number {
        alone.push(each(calls, async |_| call(&bare, &fresh()).await).await);
        layered.push(each(calls, async |_| call(&guarded, &fresh()).await).await);
        replayed.push(each(calls, async |_| call(&guarded, "one-key").await).await);
        // What is stored is made before: in a request, the layer makes it.
        stored.push(memory::run(Arc::clone(&manager), calls).await);
    }
    let (alone, layered, replayed, stored) =
        (median(alone), median(layered), median(replayed), median(stored));
    say("\n### Layer over memory, one request after another, no network\n");
    say("| who | ns per request |");
    say("|---|--:|");
    say(format!("| bare axum handler | {alone} |"));
    say(format!("| with the layer, new keys | {layered} |"));
    say(format!("| with the layer, replays of one key | {replayed} |"));
    say(format!("| begin and complete of the store alone, new keys | {stored} |"));
    say(format!("| the layer beside its store, new keys | {} |", layered.saturating_sub(alone + stored)));
}

async fn each(calls: u32, call: impl AsyncFn(u32)) -> u128 {
    let began = Instant::now();
    for number in 0..calls {
        call(number).await;
    }
    began.elapsed().as_nanos() / u128::from(calls)
}

#[expect(clippy::expect_used, reason = "a bench whose handler fails has nothing to measure")]
async fn call(app: &Router, key: &str) {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/payments")
        .header("idempotency-key", key)
        .body(Body::from(BODY))
        .expect("a request");
    let response = app.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
}

async fn over_http(rounds: Rounds) {
    let (bare, guarded) = (Connections::to(bare()).await, Connections::to(guarded()).await);
    table("Layer over memory, HTTP/1.1 on loopback, client in the same process");
    let asking = |name, connections: &Arc<Connections>, key: fn() -> String| {
        let connections = Arc::clone(connections);
        Contender::new(name, move |task, _| {
            let connections = Arc::clone(&connections);
            async move { assert_eq!(connections.ask(task, &key()).await, 200) }
        })
    };
    let cases: [(_, fn() -> String); 2] =
        [("distinct keys", fresh), ("replays of one key", || "one-key".to_owned())];
    for (case, key) in cases {
        for tasks in [1, 16, 64, 256] {
            let contenders = [asking("bare handler", &bare, key), asking("layer", &guarded, key)];
            contest(case, tasks, rounds, &contenders).await;
        }
    }
    race(rounds, "the bare handler", &bare).await;
    race(rounds, "the layer", &guarded).await;
}

/// Measures the time until all callers are answered that ask for one new key at the same instant, again and again.
async fn race(rounds: Rounds, who: &str, connections: &Arc<Connections>) {
    let (mut times, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..rounds.number * 20 {
        let (key, start) = (fresh(), Arc::new(Barrier::new(RACERS + 1)));
        let callers: Vec<_> = (0..RACERS as u64)
            .map(|task| {
                let (connections, key, start) = (Arc::clone(connections), key.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    connections.ask(task, &key).await
                })
            })
            .collect();
        start.wait().await;
        let began = Instant::now();
        let mut conflicts = 0;
        for caller in callers {
            let status = caller.await.unwrap_or_default();
            assert!([200, 409].contains(&status), "{status}");
            conflicts += u32::from(status == 409);
        }
        times.push(began.elapsed().as_micros());
        refused.push(conflicts);
    }
    say(format!(
        "\n{RACERS} duplicates racing for one new key of {who}: all answered after {} µs (median), {} of them told to \
         come back (median)",
        median(times),
        median(refused),
    ));
}

/// Open connections to one server, one for each task.
struct Connections(Vec<Mutex<TcpStream>>);

impl Connections {
    #[expect(clippy::expect_used, reason = "a bench without loopback has nothing to measure")]
    async fn to(app: Router) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(address).await.expect("connect");
            stream.set_nodelay(true).expect("no delay");
            streams.push(Mutex::new(stream));
        }
        Arc::new(Self(streams))
    }

    /// Sends one request and reads its whole answer: no more HTTP than this bench needs.
    #[expect(clippy::expect_used, reason = "as above")]
    async fn ask(&self, task: u64, key: &str) -> u16 {
        let index = usize::try_from(task).unwrap_or_default() % self.0.len();
        let mut stream = self.0[index].lock().await;
        let request = format!(
            "POST /payments HTTP/1.1\r\nhost: bench\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = Vec::with_capacity(1024);
        while !is_whole(&answer) {
            let read = stream.read_buf(&mut answer).await.expect("receive");
            assert!(read > 0, "the server hung up");
        }
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
        status.and_then(|status| status.parse().ok()).expect("a status")
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(answer) else { return false };
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

fn fresh() -> String {
    uuid::Uuid::now_v7().to_string()
}
