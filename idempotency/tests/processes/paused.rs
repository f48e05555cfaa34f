//! A process that is stopped for longer than its lease, and wakes up: it commits neither its answer nor its payment. On
//! PostgreSQL it holds its lease itself, on Redis the layer does.
//!
//! The test binary starts itself as the process that is stopped.
#![cfg(all(feature = "postgres", feature = "redis", feature = "tower"))]
#![cfg_attr(
    all(feature = "postgres", feature = "redis", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use probity_idempotency::layer::ReplayBody;
use probity_idempotency::lease::{LeaseGuard, claim};
use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::*;
use sqlx::PgPool;
use testkit::Worker;
use tower::{Layer, ServiceExt, service_fn};

const ZOMBIE: Worker = Worker::named("paused::a_process_without_orders_does_nothing");
/// Shorter than the stop of the process, which lasts until another process has taken over.
const LEASE: Duration = Duration::from_millis(300);
/// A limit that nothing reaches, on the slowest machine; without it a test would hang.
const PATIENCE: Duration = Duration::from_secs(120);
const TABLES: [&str; 2] =
    ["CREATE TABLE payments (who TEXT NOT NULL)", "CREATE TABLE woken (yes BOOL NOT NULL)"];

type Manager = Arc<dyn IdempotencyManager>;

fn a_claim() -> Claim {
    Claim {
        record: RecordId::from_bytes([5; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Local,
        terms: Terms { lease: LEASE, ..Terms::default() },
    }
}

fn answer_of(who: &str) -> Recording {
    Recording::new(201).body(who.to_owned())
}

async fn stores(database: &str, redis: &str, prefix: &str) -> (PgPool, Manager, Manager) {
    let pool = PgPool::connect(database).await.unwrap();
    let sql = Arc::new(PostgresStore::new(pool.clone()).await.unwrap());
    (pool, sql, Arc::new(RedisStore::connect(redis).await.unwrap().prefix(prefix)))
}

async fn granted(manager: &Manager) -> LeaseGuard {
    let asking = async {
        loop {
            match claim(manager, &a_claim()).await.unwrap() {
                Answer::Acquired(guard) => return guard,
                Answer::InFlight { .. } => tokio::time::sleep(Duration::from_millis(10)).await,
                other => panic!("a local key can only be running: {other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

/// Sends one payment through the layer, again while another runs; the handler awaits `work` and answers `who`. Says what
/// became of it, and its body.
async fn through_the_layer<F>(
    manager: &Manager,
    who: &'static str,
    work: impl Fn(u32) -> F + Clone + Send + 'static,
) -> (String, Bytes)
where
    F: Future<Output = ()> + Send + 'static,
{
    let layer =
        IdempotencyLayer::new(Arc::clone(manager)).single_tenant().effects(Effects::Local).lease(LEASE);
    let service = layer.layer(service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        let working = work(request.extensions().get::<Lease>().unwrap().attempt());
        async move {
            working.await;
            Ok::<_, Infallible>(Response::new(Full::from(who)))
        }
    }));
    let asking = async {
        loop {
            let request = Request::post("/").header("idempotency-key", "k").body(Full::default()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
            let status = answer.headers()["idempotency-status"].to_str().unwrap().to_owned();
            if status != "in-flight" {
                return (status, answer.into_body().collect().await.unwrap().to_bytes());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

async fn never(_: u32) {
    panic!("it ran a third time");
}

/// Claims, pays in an open transaction, says so, and goes on when it is told to: by then it has been stopped.
#[expect(clippy::print_stdout, reason = "the parent reads it")]
async fn pay_slowly(pool: &PgPool, sql: &Manager, redis: &Manager) {
    let in_sql = granted(sql).await;
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO payments (who) VALUES ('zombie')").execute(&mut *tx).await.unwrap();
    let watched = pool.clone();
    let until_woken = move |_| {
        let pool = watched.clone();
        async move {
            println!("paid, not committed");
            while sqlx::query("SELECT yes FROM woken").fetch_optional(&pool).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        }
    };
    let (status, body) = through_the_layer(redis, "zombie", until_woken).await;
    assert_eq!((status.as_str(), &body[..]), ("unrecorded", &b"zombie"[..]));
    let refused = in_sql.lease().complete_in(&mut *tx, &answer_of("zombie")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LeaseLost);
    tx.rollback().await.unwrap();
    println!("rolled back");
}

/// The process that is stopped, when it is told its work; on its own it has none.
#[test]
fn a_process_without_orders_does_nothing() {
    let Some(orders) = ZOMBIE.orders() else { return };
    let [database, redis, prefix] = orders.split('|').collect::<Vec<_>>().try_into().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (pool, sql, redis) = stores(database, redis, prefix).await;
        pay_slowly(&pool, &sql, &redis).await;
    });
}

// proves: I-4
// proves: I-1
#[test]
fn a_process_that_was_stopped_past_its_lease_commits_neither_its_answer_nor_its_payment() {
    let (database, redis) = (testkit::Postgres::shared().database(), testkit::Redis::shared());
    let prefix = redis.key_prefix();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (pool, in_sql, in_redis) = runtime.block_on(async {
        let made = stores(database.url(), redis.url(), &prefix).await;
        for table in TABLES {
            sqlx::query(table).execute(&made.0).await.unwrap();
        }
        made
    });
    let mut zombie = ZOMBIE.start(&format!("{}|{}|{prefix}", database.url(), redis.url()));
    zombie.wait_for_line("paid, not committed");
    zombie.pause();
    runtime.block_on(async {
        let heir = granted(&in_sql).await;
        assert_eq!(heir.lease().attempt(), 2);
        let mut tx = pool.begin().await.unwrap();
        sqlx::query("INSERT INTO payments (who) VALUES ('heir')").execute(&mut *tx).await.unwrap();
        heir.lease().complete_in(&mut *tx, &answer_of("heir")).await.unwrap();
        tx.commit().await.unwrap();
        let second = async |attempt| assert_eq!(attempt, 2);
        let (status, body) = through_the_layer(&in_redis, "heir", second).await;
        assert_eq!((status.as_str(), &body[..]), ("created", &b"heir"[..]));
        sqlx::query("INSERT INTO woken (yes) VALUES (true)").execute(&pool).await.unwrap();
        // The transaction has completed the record, and this guard does not know it.
        let mut heir = heir;
        assert_eq!(heir.complete(&answer_of("heir")).await.unwrap(), Written::AlreadyApplied);
    });
    zombie.resume();
    zombie.wait_for_line("rolled back");
    runtime.block_on(async {
        let paid: Vec<String> =
            sqlx::query_scalar("SELECT who FROM payments").fetch_all(&pool).await.unwrap();
        assert_eq!(paid, ["heir"]);
        assert_eq!(in_sql.claim(&a_claim()).await.unwrap(), Answer::Replay(answer_of("heir")));
        let (status, body) = through_the_layer(&in_redis, "nobody", never).await;
        assert_eq!((status.as_str(), &body[..]), ("replayed", &b"heir"[..]));
        pool.close().await;
    });
}
