//! Extreme durations: unlimited ones, and impossible ones.
#![cfg(all(feature = "testing", feature = "tower"))]
#![cfg_attr(
    all(feature = "testing", feature = "tower"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use probity_idempotency::layer::ReplayBody;
use probity_idempotency::store::RecordId;
use probity_idempotency::testing::{Call, FaultyStore, Side};
use probity_idempotency::*;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};

const ENDLESS: Duration = Duration::MAX;

fn endless() -> Policy {
    Policy::default().lease(ENDLESS).lease_cap(ENDLESS).retention(ENDLESS)
}

fn request() -> Request<Full<Bytes>> {
    Request::post("/").header("idempotency-key", "k").body(Full::from("{}")).unwrap()
}

async fn run(
    manager: &Arc<dyn IdempotencyManager>,
    policy: &Policy,
) -> Result<Execution<u8>, ExecuteError<StoreError>> {
    execute(manager, &Scope::single_tenant(), &key(), fingerprint(), policy, async |_| Ok(7)).await
}

fn key() -> IdempotencyKey {
    IdempotencyKey::new("k").unwrap()
}

fn fingerprint() -> Fingerprint {
    Fingerprint::of(&HashKey::default(), &[b"order"])
}

// proves: I-2
#[tokio::test]
async fn unlimited_durations_do_not_panic_after_the_work_has_run() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let layer = IdempotencyLayer::new(manager)
        .single_tenant()
        .policy(endless())
        .response_patience(ENDLESS)
        .store_timeout(ENDLESS)
        .wait(ENDLESS, 4);
    let (started, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (starting, gate) = (Arc::clone(&started), Arc::clone(&go));
    let service = layer.layer(service_fn(move |_: Request<ReplayBody<Full<Bytes>>>| {
        let (starting, gate) = (Arc::clone(&starting), Arc::clone(&gate));
        async move {
            starting.add_permits(1);
            gate.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::new(Full::from("paid")))
        }
    }));
    let first = tokio::spawn(service.clone().oneshot(request()));
    // A first request that panicked never starts.
    let running = tokio::time::timeout(Duration::from_secs(60), started.acquire()).await;
    running.expect("the handler never started").unwrap().forget();
    let mut waiter = tokio::spawn(service.clone().oneshot(request()));
    // The request waits. If its waiter had panicked, it would be finished.
    assert!(futures_util::poll!(&mut waiter).is_pending());
    tokio::task::yield_now().await;
    assert!(futures_util::poll!(&mut waiter).is_pending());
    go.add_permits(1);
    for (answer, status) in [(first.await, "created"), (waiter.await, "replayed")] {
        let response = answer.unwrap().unwrap_or_else(|never| match never {});
        assert_eq!(response.headers()["idempotency-status"], status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "paid");
    }
}

#[tokio::test]
async fn a_job_accepts_unlimited_durations() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    for expected in [Execution::Fresh(7), Execution::Replayed(7)] {
        assert_eq!(run(&manager, &endless()).await.unwrap(), expected);
    }
}

/// Says what cannot be right, and the method to change.
type Wrong = (fn(), &'static str);

#[test]
fn impossible_durations_are_refused_where_they_are_set() {
    let wrong: [Wrong; 6] = [
        (|| drop(Policy::default().retention(Duration::ZERO)), "`retention`"),
        (|| drop(Policy::default().lease(Duration::ZERO)), "`lease`"),
        (|| drop(Policy::default().lease_cap(Duration::from_secs(29))), "`lease_cap`"),
        (|| drop(a_layer().retention(Duration::ZERO)), "`retention`"),
        (|| drop(a_layer().lease(Duration::ZERO)), "`lease`"),
        (|| drop(a_layer().lease_cap(Duration::from_secs(29))), "`lease_cap`"),
    ];
    for (put_together, remedy) in wrong {
        let refused = std::panic::catch_unwind(put_together).unwrap_err();
        let why = refused.downcast_ref::<&str>().unwrap();
        assert!(why.contains(remedy), "{why}");
    }
}

fn a_layer() -> IdempotencyLayer {
    IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant()
}

#[tokio::test]
async fn a_long_lease_moves_the_end_of_all_renewals() {
    let manager = MemoryStore::new();
    let hours = Duration::from_secs(7200);
    let policy = Policy::default().lease(hours);
    let shared: Arc<dyn IdempotencyManager> = Arc::new(manager);
    let (scope, key) = (Scope::single_tenant(), key());
    let look = async |lease: Lease| {
        Ok::<_, StoreError>(shared.get(lease.record()).await?.unwrap().lease_left > hours / 2)
    };
    let long = execute(&shared, &scope, &key, fingerprint(), &policy, look).await;
    assert_eq!(long.unwrap(), Execution::Fresh(true));
}

#[tokio::test(start_paused = true)]
async fn a_job_stops_waiting_for_a_silent_store_after_its_timeout() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    store.fail(Call::Claim, Side::Silence);
    store.fail(Call::Claim, Side::Silence);
    let policy = Policy::default().store_timeout(Duration::from_millis(700));
    let started = tokio::time::Instant::now();
    let refused = run(&(Arc::new(store) as Arc<dyn IdempotencyManager>), &policy).await.unwrap_err();
    assert!(
        matches!(&refused, ExecuteError::NotRun(error) if error.kind() == ErrorKind::Timeout),
        "{refused:?}"
    );
    assert_eq!(
        started.elapsed(),
        Duration::from_millis(1400),
        "asked twice, because the first may have been granted"
    );
}

// proves: I-9
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_claim_with_an_unlimited_lease_is_released() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    store.fail(Call::Claim, Side::After);
    store.fail(Call::Claim, Side::After);
    let manager: Arc<dyn IdempotencyManager> = store;
    let refused = run(&manager, &endless()).await.unwrap_err();
    assert!(
        matches!(&refused, ExecuteError::NotRun(error) if error.effect() == Effect::Unknown),
        "{refused:?}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(run(&manager, &endless()).await.unwrap(), Execution::Fresh(7));
}

#[tokio::test(start_paused = true)]
async fn an_unlimited_claim_that_never_arrived_is_not_looked_for_without_end() {
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    store.fail(Call::Claim, Side::Before);
    store.fail(Call::Claim, Side::Before);
    let manager: Arc<dyn IdempotencyManager> = Arc::<FaultyStore>::clone(&store);
    let refused = run(&manager, &endless()).await.unwrap_err();
    assert!(matches!(refused, ExecuteError::NotRun(_)), "{refused:?}");
    drop(manager);
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(Arc::strong_count(&store), 1, "somebody still asks the store");
}

// proves: I-8
#[tokio::test]
async fn the_hash_key_of_a_job_keys_its_record() {
    let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    let secret = HashKey::secret([7; 32]);
    let policy = Policy::default().hash_key(secret);
    assert_eq!(run(&manager, &policy).await.unwrap(), Execution::Fresh(7));
    let place = |hash: &HashKey| RecordId::derive(hash, &Scope::single_tenant(), &key());
    assert!(manager.get(place(&secret)).await.unwrap().is_some());
    assert!(manager.get(place(&HashKey::default())).await.unwrap().is_none());
}

// proves: I-5
#[tokio::test(start_paused = true)]
async fn an_effect_does_not_start_when_the_lease_ended_while_the_store_was_asked() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    // No renewal arrives, and the mark only when the lease is over.
    store.fail(Call::Renew, Side::Silence);
    store.fail(Call::MarkEffect, Side::Silence);
    let layer = IdempotencyLayer::new(Arc::new(store))
        .single_tenant()
        .effects(Effects::Marked)
        .lease(Duration::from_secs(10))
        .store_timeout(Duration::from_secs(12));
    let service = layer.layer(service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
        let lease = request.extensions().get::<Lease>().unwrap().clone();
        let started = lease.effect_starting().await;
        let answer = started.map_or_else(|error| format!("{:?}", error.kind()), |()| "started".to_owned());
        Ok::<_, Infallible>(Response::new(Full::from(answer)))
    }));
    let response = service.oneshot(request()).await.unwrap_or_else(|never| match never {});
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "LeaseLost");
}
