//! Processes that die by kill -9 at random moments, many times, on real servers: what was paid, and how often?
//!
//! The test binary starts itself as the worker. A worker reports each step as a line; the parent kills it at a random
//! one. The seed is printed, and `PROBITY_TEST_SEED` repeats it; `cargo xtask chaos` kills many more.
#![cfg(all(feature = "postgres", feature = "redis"))]
#![cfg_attr(
    all(feature = "postgres", feature = "redis"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use probity_idempotency::*;
use redis::aio::ConnectionManager;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};
use testkit::{Program, Rng};

/// How many keys a worker is given; half of them are also another worker's.
const SHARE: u64 = 8;
/// How many keys a worker on PostgreSQL pays at once, so that its calls share statements.
const AT_ONCE: usize = 4;
/// Short, so that the keys of the dead are taken over while the test runs.
const LEASE: Duration = Duration::from_millis(30);
const ORDERS: &str = "PROBITY_KILL_WORKER";

/// How often a worker is killed, per store.
fn kills() -> u64 {
    std::env::var("PROBITY_TEST_KILLS").map_or(200, |kills| kills.parse().unwrap())
}

/// How many keys all workers have together.
fn all_keys() -> u64 {
    (kills() + 2) * SHARE / 2 + SHARE / 2
}

fn claim_of(key: u64, effects: Effects) -> Claim {
    let scope = Scope::single_tenant();
    let key = IdempotencyKey::new(format!("key-{key}")).unwrap();
    Claim {
        record: RecordId::derive(&HashKey::default(), &scope, &key),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease: LEASE, ..Terms::default() },
    }
}

/// Reports a step, and gives the parent its chance.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn step(count: &Cell<u64>) {
    count.set(count.get() + 1);
    println!("step {} done", count.get());
    tokio::task::yield_now().await;
}

/// Pays one key in PostgreSQL: the payment and the answer are one commit.
async fn pay_locally(
    pool: &PgPool,
    manager: &Arc<dyn IdempotencyManager>,
    key: u64,
    count: &Cell<u64>,
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
        let _ = guard.abandon().await.unwrap();
        return false;
    }
    step(count).await;
    tx.commit().await.unwrap();
    step(count).await;
    let _ = guard.complete(&Recording::new(201)).await.unwrap();
    true
}

/// Pays one key through Redis: the payment is an effect outside, so a lost attempt must stay lost.
async fn pay_outside(
    channel: &mut ConnectionManager,
    manager: &Arc<dyn IdempotencyManager>,
    prefix: &str,
    key: u64,
    count: &Cell<u64>,
) -> bool {
    let mut guard = match claim(manager, &claim_of(key, Effects::Opaque)).await.unwrap() {
        Answer::Acquired(guard) => guard,
        Answer::Replay(_) | Answer::Indeterminate(_) => return true,
        Answer::InFlight { .. } => return false,
        other => panic!("an opaque key can only be running, done or unknown: {other:?}"),
    };
    step(count).await;
    let charge = format!("{prefix}charge:{key}");
    let _: u64 = redis::cmd("INCR").arg(charge).query_async(channel).await.unwrap();
    step(count).await;
    let written = guard.complete(&Recording::new(201)).await.unwrap();
    assert!(matches!(written, Written::Applied), "nobody takes an opaque key over: {written:?}");
    step(count).await;
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
    fn as_command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_worker_without_orders_does_nothing", "--nocapture", "--test-threads=1"]);
        let Self { store, url, prefix, seed, keys } = self;
        command.env(ORDERS, format!("{store}|{url}|{prefix}|{seed}|{}|{}", keys.start, keys.end));
        command
    }
}

/// Works through the keys in a random order until all are settled.
async fn work(orders: &Orders) {
    let mut keys: Vec<u64> = orders.keys.clone().collect();
    Rng::new(orders.seed).shuffle(&mut keys);
    let count = Cell::new(0);
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
        let mut channel = ConnectionManager::new(client).await.unwrap();
        while let Some(key) = keys.pop() {
            if !pay_outside(&mut channel, &manager, &orders.prefix, key, &count).await {
                keys.insert(0, key);
            }
        }
    }
}

/// The worker, when it is told its work; on its own it has none.
#[test]
fn a_worker_without_orders_does_nothing() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
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
        Program::spawn(Orders { seed: orders.seed ^ round, keys, ..orders.clone() }.as_command())
    };
    let (mut victim, mut survivor) = (start(0), start(1));
    for kill in 0..kills() {
        // A worker whose keys are settled by another ends by itself; a step it never reaches is not waited for.
        let step = format!("step {} done", rng.between(1, 8));
        while victim.is_running() && !victim.output().contains(&step) {
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
fn on_postgres_no_key_is_paid_twice_and_none_is_forgotten_however_often_workers_are_killed() {
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
        work(&orders).await;
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
fn on_redis_no_key_is_charged_twice_however_often_workers_are_killed() {
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
        work(&orders).await;
        let client = redis::Client::open(orders.url.as_str()).unwrap();
        let mut channel = ConnectionManager::new(client).await.unwrap();
        let store = RedisStore::connect(&orders.url).await.unwrap().prefix(&orders.prefix);
        let (mut settled, mut unknown) = (0, 0);
        for key in orders.keys.clone() {
            let charge = format!("{}charge:{key}", orders.prefix);
            let charges: Option<u64> = redis::cmd("GET").arg(charge).query_async(&mut channel).await.unwrap();
            let charges = charges.unwrap_or_default();
            assert!(charges <= 1, "key {key} was charged {charges} times");
            match store.begin(&claim_of(key, Effects::Opaque)).await.unwrap() {
                Answer::Replay(_) => settled += charges,
                Answer::Indeterminate(_) => unknown += 1,
                other => panic!("key {key}: {other:?}"),
            }
        }
        assert_eq!(settled + unknown, all_keys(), "every key has its answer, or is known to be unknown");
        assert!(unknown > 0, "no worker was killed between claim and completion");
    });
}
