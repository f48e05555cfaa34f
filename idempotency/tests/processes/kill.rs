//! Processes that die by kill -9 at random moments, many times, on real servers: each key is paid once. On PostgreSQL
//! they hold their leases themselves, on Redis the layer does.
//!
//! The test binary starts itself as the worker. A worker reports each step as a line; the parent kills it at a random
//! one. The seed is printed, and `PROBITY_TEST_SEED` repeats it; `cargo xtask chaos` kills many more.
#![cfg(all(feature = "postgres", feature = "redis", feature = "tower"))]
#![cfg_attr(
    all(feature = "postgres", feature = "redis", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use probity_idempotency::layer::ReplayBody;
use probity_idempotency::lease::claim;
use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, State, Terms};
use probity_idempotency::*;
use redis::aio::ConnectionManager;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use testkit::{Program, Rng, Worker};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

/// The number of keys that a worker is given; half of them are also another worker's.
const SHARE: u64 = 8;
/// The number of keys that a worker on PostgreSQL pays at once, so that its calls share statements.
const AT_ONCE: usize = 4;
/// Short, so that the keys of the dead are taken over while the test runs.
const LEASE: Duration = Duration::from_millis(30);
/// No worker takes this long for a step, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(300);
const WORKER: Worker = Worker::named("kill::a_worker_without_orders_does_nothing");

/// Returns the number of times that a worker is killed, per store.
fn kills() -> u64 {
    std::env::var("PROBITY_TEST_KILLS").map_or(200, |kills| kills.parse().unwrap())
}

/// Returns the number of keys that all workers have together.
fn all_keys() -> u64 {
    (kills() + 2) * SHARE / 2 + SHARE / 2
}

fn record_of(key: u64) -> RecordId {
    let key = IdempotencyKey::new(format!("key-{key}")).unwrap();
    RecordId::derive(&HashKey::default(), &Scope::single_tenant(), &key)
}

fn claim_of(key: u64, effects: Effects) -> Claim {
    Claim {
        record: record_of(key),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease: LEASE, ..Terms::default() },
    }
}

/// Reports a step, and gives the parent its chance.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn step(count: &AtomicU64) {
    println!("step {} done", count.fetch_add(1, Ordering::SeqCst) + 1);
    tokio::task::yield_now().await;
}

/// Pays one key in PostgreSQL: the payment and the answer are one commit.
async fn pay_locally(
    pool: &PgPool,
    manager: &Arc<dyn IdempotencyManager>,
    key: u64,
    count: &AtomicU64,
) -> bool {
    let mut guard = match claim(manager, &claim_of(key, Effects::Local)).await.unwrap() {
        Answer::Acquired(guard) => guard,
        Answer::Replay(_) => return true,
        Answer::InFlight { .. } => return false,
        other => panic!("a local key can only be running or done: {other:?}"),
    };
    step(count).await;
    let mut tx = pool.begin().await.unwrap();
    let key = i64::try_from(key).unwrap();
    sqlx::query("INSERT INTO payments (key) VALUES ($1)").bind(key).execute(&mut *tx).await.unwrap();
    step(count).await;
    if guard.lease().complete_in(&mut *tx, &Recording::new(201)).await.is_err() {
        tx.rollback().await.unwrap();
        let _ = guard.release().await.unwrap();
        return false;
    }
    step(count).await;
    tx.commit().await.unwrap();
    step(count).await;
    let _ = guard.complete(&Recording::new(201)).await.unwrap();
    true
}

/// A handler behind the layer over Redis: the charge is an effect outside, so a lost attempt must stay lost.
fn charging(
    manager: Arc<dyn IdempotencyManager>,
    channel: ConnectionManager,
    prefix: String,
    count: Arc<AtomicU64>,
) -> impl Service<Request<Full<Bytes>>, Response = Response<ReplayBody<Full<Bytes>>>, Error = Infallible> + Clone
{
    let layer = IdempotencyLayer::new(manager).single_tenant().lease(LEASE);
    layer.layer(service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let (mut channel, prefix, count) = (channel.clone(), prefix.clone(), Arc::clone(&count));
        async move {
            step(&count).await;
            let key = request.headers()["idempotency-key"].to_str().unwrap();
            let charge = format!("{prefix}charge:{key}");
            let charges: u64 = redis::cmd("INCR").arg(charge).query_async(&mut channel).await.unwrap();
            step(&count).await;
            if key.ends_with('0') {
                // The work takes long enough for a renewal of the lease.
                tokio::time::sleep(LEASE).await;
            }
            Ok::<_, Infallible>(Response::new(Full::from(charges.to_string())))
        }
    }))
}

/// Sends one key through the layer. Says whether it is settled.
async fn pay_outside<S, B>(service: &S, key: u64, count: &AtomicU64) -> bool
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone,
{
    let request = Request::post("/").header("idempotency-key", format!("key-{key}")).body(Full::default());
    let answer = service.clone().oneshot(request.unwrap()).await.unwrap_or_else(|never| match never {});
    match answer.headers()["idempotency-status"].to_str().unwrap() {
        "created" => step(count).await,
        "replayed" | "indeterminate" => {}
        "in-flight" => return false,
        other => panic!("nobody takes an opaque key over, and Redis is there: {other}"),
    }
    true
}

#[derive(Clone)]
struct Orders {
    store: &'static str,
    url: String,
    prefix: String,
    seed: u64,
    keys: std::ops::Range<u64>,
}

impl Orders {
    fn start(&self) -> Program {
        let Self { store, url, prefix, seed, keys } = self;
        WORKER.start(&format!("{store}|{url}|{prefix}|{seed}|{}|{}", keys.start, keys.end))
    }
}

/// Works through the keys in a random order until all are settled.
async fn work(orders: &Orders) {
    let mut keys: Vec<u64> = orders.keys.clone().collect();
    Rng::new(orders.seed).shuffle(&mut keys);
    let count = Arc::new(AtomicU64::new(0));
    if orders.store == "postgres" {
        let pool = PgPoolOptions::new().max_connections(8).connect(&orders.url).await.unwrap();
        let manager: Arc<dyn IdempotencyManager> = Arc::new(PostgresStore::new(pool.clone()).await.unwrap());
        let keys = RefCell::new(keys);
        let paying = (0..AT_ONCE).map(async |_| {
            loop {
                let Some(key) = keys.borrow_mut().pop() else { break };
                if !pay_locally(&pool, &manager, key, &count).await {
                    keys.borrow_mut().insert(0, key);
                }
            }
        });
        join_all(paying).await;
    } else {
        let store = RedisStore::connect(&orders.url).await.unwrap().prefix(&orders.prefix);
        let manager: Arc<dyn IdempotencyManager> = Arc::new(store);
        let client = redis::Client::open(orders.url.as_str()).unwrap();
        let channel = ConnectionManager::new(client).await.unwrap();
        let service = charging(manager, channel, orders.prefix.clone(), Arc::clone(&count));
        while let Some(key) = keys.pop() {
            if !pay_outside(&service, key, &count).await {
                keys.insert(0, key);
            }
        }
    }
}

/// The worker, when it is told its work; on its own it has none.
#[test]
fn a_worker_without_orders_does_nothing() {
    let Some(orders) = WORKER.orders() else { return };
    let mut parts = orders.split('|');
    let store = if parts.next() == Some("postgres") { "postgres" } else { "redis" };
    let mut next = || parts.next().unwrap().to_owned();
    let (url, prefix, seed) = (next(), next(), next().parse().unwrap());
    let keys = next().parse().unwrap()..next().parse().unwrap();
    let orders = Orders { store, url, prefix, seed, keys };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work(&orders));
}

/// Two workers at a time; one of them is killed at a random step and replaced, until the kills are used up.
fn kill_workers(orders: &Orders) {
    let mut rng = Rng::new(orders.seed);
    let start = |round: u64| {
        let keys = round * SHARE / 2..round * SHARE / 2 + SHARE;
        Orders { seed: orders.seed ^ round, keys, ..orders.clone() }.start()
    };
    let (mut victim, mut survivor) = (start(0), start(1));
    for kill in 0..kills() {
        // A worker whose keys are settled by another ends by itself; a step it never reaches is not waited for.
        let step = format!("step {} done", rng.between(1, 8));
        let give_up_at = Instant::now() + PATIENCE;
        while victim.is_running() && !victim.output().contains(&step) {
            assert!(Instant::now() < give_up_at, "a worker neither works nor ends:\n{}", victim.output());
            std::thread::park_timeout(Duration::from_micros(200));
        }
        victim.kill9();
        victim = std::mem::replace(&mut survivor, start(kill + 2));
    }
    victim.kill9();
    survivor.kill9();
}

// proves: I-4
// proves: I-1
#[test]
fn on_postgres_each_key_is_paid_once_although_workers_are_killed() {
    let database = testkit::Postgres::shared().database();
    let orders = Orders {
        store: "postgres",
        url: database.url().to_owned(),
        prefix: String::new(),
        seed: testkit::seed(),
        keys: 0..all_keys(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pool = runtime.block_on(async {
        let pool = PgPoolOptions::new().connect(&orders.url).await.unwrap();
        sqlx::query("CREATE TABLE payments (key BIGINT NOT NULL)").execute(&pool).await.unwrap();
        pool
    });
    kill_workers(&orders);
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work(&orders)).await.unwrap();
        let rows =
            sqlx::query("SELECT key, count(*) FROM payments GROUP BY key").fetch_all(&pool).await.unwrap();
        assert_eq!(rows.len(), usize::try_from(all_keys()).unwrap(), "every key is paid");
        for row in rows {
            assert_eq!(row.get::<i64, _>(1), 1, "key {} is paid more than once", row.get::<i64, _>(0));
        }
        pool.close().await;
    });
}

// proves: I-5
#[test]
fn on_redis_no_key_is_charged_twice_although_workers_are_killed() {
    let server = testkit::Redis::start_with(&["--appendonly", "no"]);
    let orders = Orders {
        store: "redis",
        url: server.url().to_owned(),
        prefix: server.key_prefix(),
        seed: testkit::seed(),
        keys: 0..all_keys(),
    };
    kill_workers(&orders);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work(&orders)).await.unwrap();
        let client = redis::Client::open(orders.url.as_str()).unwrap();
        let mut channel = ConnectionManager::new(client).await.unwrap();
        let store = RedisStore::connect(&orders.url).await.unwrap().prefix(&orders.prefix);
        let (mut settled, mut unknown) = (0, 0);
        for key in orders.keys.clone() {
            let charge = format!("{}charge:key-{key}", orders.prefix);
            let charges: Option<u64> = redis::cmd("GET").arg(charge).query_async(&mut channel).await.unwrap();
            let charges = charges.unwrap_or_default();
            assert!(charges <= 1, "key {key} was charged {charges} times");
            match store.get(record_of(key)).await.unwrap() {
                Some(found) if found.state == State::Completed => settled += charges,
                Some(found) if found.is_indeterminate() => unknown += 1,
                other => panic!("key {key}: {other:?}"),
            }
        }
        assert_eq!(settled + unknown, all_keys(), "every key has its answer, or is known to be unknown");
        assert!(unknown > 0, "no worker was killed between claim and completion");
    });
}
