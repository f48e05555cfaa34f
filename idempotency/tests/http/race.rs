//! 64 clients released by one barrier, through the layer, on every store. The history checker verifies all answers of
//! the store.
#![cfg(all(
    feature = "testing",
    feature = "tower",
    feature = "sqlite",
    feature = "postgres",
    feature = "redis-cluster"
))]
#![cfg_attr(
    all(
        feature = "testing",
        feature = "tower",
        feature = "sqlite",
        feature = "postgres",
        feature = "redis-cluster"
    ),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use probity_idempotency::layer::ReplayBody;
use probity_idempotency::testing::HistoryStore;
use probity_idempotency::*;
use tokio::sync::Barrier;
use tower::{ServiceBuilder, ServiceExt};

/// Every client has its answer sooner, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn race(manager: Arc<dyn IdempotencyManager>) {
    let runs = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&runs);
    let history = Arc::new(HistoryStore::new(manager));
    let effects = Arc::clone(&history);
    let layer = IdempotencyLayer::new(history.clone()).single_tenant();
    let service =
        ServiceBuilder::new().layer(layer).service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let run = counter.fetch_add(1, Ordering::SeqCst) + 1;
            effects.effect(request.extensions().get::<Lease>().unwrap().record());
            async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(
                    Response::builder()
                        .status(201)
                        .header("etag", "\"1\"")
                        .body(Full::from(format!("run {run}")))
                        .unwrap(),
                )
            }
        });
    let barrier = Arc::new(Barrier::new(64));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (service, barrier) = (service.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                // A client that is told to wait asks again, until it has its answer.
                loop {
                    let request =
                        Request::post("/").header("idempotency-key", "race").body(Full::from("{}")).unwrap();
                    let answer =
                        service.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                    if answer.status() != 409 {
                        let (parts, body) = answer.into_parts();
                        return (
                            parts.status,
                            parts.headers["etag"].clone(),
                            body.collect().await.unwrap().to_bytes(),
                        );
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        let (status, etag, body) = tokio::time::timeout(PATIENCE, client).await.unwrap().unwrap();
        assert_eq!((status.as_u16(), etag.as_bytes(), &body[..]), (201, &b"\"1\""[..], &b"run 1"[..]));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    history.check().unwrap();
}

// proves: I-1
// proves: I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_memory_one_of_64_runs_and_all_get_its_answer() {
    race(Arc::new(MemoryStore::new())).await;
}

// proves: I-1
// proves: I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sqlite_one_of_64_runs_and_all_get_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("race.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    race(Arc::new(SqliteStore::new(pool).await.unwrap())).await;
}

// proves: I-1
// proves: I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_postgres_one_of_64_runs_and_all_get_its_answer() {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    race(Arc::new(PostgresStore::new(pool).await.unwrap())).await;
}

// proves: I-1
// proves: I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_redis_one_of_64_runs_and_all_get_its_answer() {
    let server = tokio::task::spawn_blocking(testkit::Redis::shared).await.unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap().prefix(server.key_prefix());
    race(Arc::new(store)).await;
}

// proves: I-1
// proves: I-2
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_redis_cluster_one_of_64_runs_and_all_get_its_answer() {
    let cluster = tokio::task::spawn_blocking(testkit::Redis::cluster).await.unwrap();
    let client = redis::cluster::ClusterClientBuilder::new(cluster.urls().to_vec())
        .response_timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    race(Arc::new(RedisStore::new(client.get_async_connection().await.unwrap()))).await;
}
