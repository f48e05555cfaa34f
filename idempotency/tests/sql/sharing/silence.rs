//! A connection that dies silently: the calls on it get neither an answer nor an error.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use futures_util::future::join_all;
use probity_idempotency::store::{Answer, Claim, Written};
use probity_idempotency::*;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use testkit::Proxy;
use tokio::time::timeout;

use super::{Database, KEPT, PATIENCE, a_claim, database, locked_out, recording};

/// A proxy before the server, and the options that lead through it.
fn through_a_proxy(server: &PgConnectOptions) -> (PgConnectOptions, Proxy) {
    let address = (server.get_host(), server.get_port()).to_socket_addrs().unwrap().next().unwrap();
    let proxy = Proxy::before(address);
    let wire = server.clone().host("127.0.0.1").port(proxy.address().port());
    (wire, proxy)
}

/// Silences the wire while `calls` are on it: each waits for the table.
async fn silenced<T>(
    pool: &PgPool,
    proxy: &Proxy,
    call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError>
where
    T: Send + 'static,
{
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE idempotency_records IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    let call = tokio::spawn(call);
    locked_out(pool, 1).await;
    proxy.silence();
    let answer = timeout(PATIENCE, call).await.unwrap().unwrap();
    tx.rollback().await.unwrap();
    answer
}

// proves: I-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_closed_and_the_next_calls_are_served() {
    let Database { pool, database, .. } = database().await;
    let (wire, proxy) = through_a_proxy(&database.url().parse().unwrap());
    let options = PgPoolOptions::new().max_connections(4).min_connections(4);
    let wired = options.acquire_timeout(Duration::from_secs(5)).connect_with(wire).await.unwrap();
    let store = PostgresStore::new(wired.clone()).await.unwrap();
    let (claim, by) = (a_claim(0), store.clone());
    let error = silenced(&pool, &proxy, async move { by.claim(&claim).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    served(&store, &claim).await;
    let (holder, by) = (claim.holder(), store.clone());
    let renewal = async move { by.renew(&holder, KEPT).await };
    let error = silenced(&pool, &proxy, renewal).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::Unknown));
    let mut failures = 0;
    let completed = async {
        loop {
            match store.complete(&holder, &recording(0), KEPT).await {
                Ok(written) => return written,
                Err(_) => failures += 1,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, completed).await.expect("served"), Written::Applied);
    assert!(failures <= 4, "{failures} failures with four connections");
    // The silenced connection was closed and not returned to the pool, which therefore has all four again.
    let whole = async { while join_all((0..4).map(|_| wired.acquire())).await.iter().any(Result::is_err) {} };
    timeout(PATIENCE, whole).await.expect("a pool of four");
}

/// Claims again until the pool has found out about its connections, each of which may cost a call.
async fn served(store: &PostgresStore, claim: &Claim) {
    let granted = async {
        loop {
            match store.claim(claim).await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
            }
        }
    };
    let answer = timeout(PATIENCE, granted).await.unwrap();
    assert!(matches!(answer, Answer::Acquired(grant) if grant.attempt == 1), "{answer:?}");
}
