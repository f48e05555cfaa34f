//! A Redis Cluster of three masters keeps the contract, also when it loses a node.
#![cfg(all(feature = "testing", feature = "redis-cluster"))]
#![cfg_attr(
    all(feature = "testing", feature = "redis-cluster"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::join_all;
use probity_idempotency::store::{Answer, Claim, ClusterConnection, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::testing::Subject;
use probity_idempotency::*;
use testkit::{Redis, RedisCluster};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A limit that nothing reaches, on the slowest machine; without it a test would hang.
const PATIENCE: Duration = Duration::from_secs(120);

static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(Redis::cluster);

async fn store(urls: &[String]) -> RedisStore<ClusterConnection> {
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    RedisStore::connect_cluster(&urls).await.unwrap()
}

async fn subject() -> Subject {
    let urls = tokio::task::spawn_blocking(|| CLUSTER.urls().to_vec()).await.unwrap();
    Subject::new(Arc::new(store(&urls).await))
}

// proves: I-1
probity_idempotency::store_contract!(subject);

#[tokio::test]
async fn every_master_is_asked_whether_it_can_be_trusted() {
    let cluster = tokio::task::spawn_blocking(Redis::cluster).await.unwrap();
    let store = store(cluster.urls()).await;
    let found = store.durability().await.unwrap();
    assert_eq!((found.servers, found.replicas, found.is_master), (3, 0, true));
    assert!(found.never_evicts && found.append_only, "{found:?}");
    for (place, url) in cluster.urls().iter().enumerate() {
        let client = redis::Client::open(url.as_str()).unwrap();
        let mut one = client.get_multiplexed_async_connection().await.unwrap();
        let set = |name: &str, value: &str| redis::cmd("CONFIG").arg(&["SET", name, value]).clone();
        set("maxmemory-policy", "volatile-lru").exec_async(&mut one).await.unwrap();
        set("appendonly", "no").exec_async(&mut one).await.unwrap();
        let found = store.durability().await.unwrap();
        assert!(!found.never_evicts && !found.append_only, "one that evicts, at {place}: {found:?}");
        set("maxmemory-policy", "noeviction").exec_async(&mut one).await.unwrap();
        set("appendonly", "yes").exec_async(&mut one).await.unwrap();
    }
}

fn a_claim() -> Claim {
    let mut record = [0; 32];
    record[..16].copy_from_slice(OwnerToken::generate().unwrap().as_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Opaque,
        terms: Terms::default(),
    }
}

/// Changes what the user `payments` may do on one node.
async fn may(node: &str, rules: &[&str]) {
    let client = redis::Client::open(node).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("payments").arg(rules).exec_async(&mut admin).await.unwrap();
}

#[tokio::test]
async fn a_user_who_lacks_a_command_on_one_node_is_refused_at_start() {
    let cluster = tokio::task::spawn_blocking(Redis::cluster).await.unwrap();
    for node in cluster.urls() {
        may(node, &["on", ">secret", "resetchannels", "~idempotency:*", "-@all", "+info"]).await;
        may(node, &["+ping", "+cluster|slots"]).await;
        may(node, &RedisStore::COMMANDS.map(|command| format!("+{command}")).each_ref().map(String::as_str))
            .await;
    }
    let urls: Vec<_> =
        cluster.urls().iter().map(|url| url.replace("redis://", "redis://payments:secret@")).collect();
    assert!(serves_every_key(&store(&urls).await).await);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for node in cluster.urls() {
        may(node, &["-setrange"]).await;
        let refused = RedisStore::connect_cluster(&urls).await.unwrap_err();
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Rejected, Effect::NotApplied));
        may(node, &["+setrange"]).await;
    }
}

/// Breaks the cluster on a thread that may block.
async fn with(
    mut cluster: RedisCluster,
    act: impl FnOnce(&mut RedisCluster) + Send + 'static,
) -> RedisCluster {
    let acting = tokio::task::spawn_blocking(move || {
        act(&mut cluster);
        cluster
    });
    acting.await.unwrap()
}

/// Claims new keys in a loop until told to stop, as many callers as `CALLERS`.
struct Load {
    stop: Arc<AtomicBool>,
    granted: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    const CALLERS: usize = 300;

    fn on(store: &RedisStore<ClusterConnection>) -> Self {
        let (stop, granted, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { stop, granted, failed, callers: Vec::new() };
        for _ in 0..Self::CALLERS {
            let (store, stop) = (store.clone(), Arc::clone(&load.stop));
            let (granted, failed) = (Arc::clone(&load.granted), Arc::clone(&load.failed));
            load.callers.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let counter = match store.claim(&a_claim()).await {
                        Ok(Answer::Acquired(_)) => &granted,
                        Ok(other) => panic!("a new key answers {other:?}"),
                        Err(_) => &failed,
                    };
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        load
    }

    /// Waits until this many more calls are counted.
    async fn counts(counter: &AtomicU32, more: u32) {
        let reached = counter.load(Ordering::SeqCst) + more;
        let counting = async {
            while counter.load(Ordering::SeqCst) < reached {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, counting).await.unwrap();
    }
}

/// Says whether the store can claim and complete each of so many keys that every node has some.
async fn serves_every_key(store: &RedisStore<ClusterConnection>) -> bool {
    let pay = async || {
        let (claim, kept) = (a_claim(), Duration::from_secs(60));
        let granted = store.claim(&claim).await;
        let written = store.complete(&claim.holder(), &Recording::new(200), kept).await;
        matches!((granted, written), (Ok(Answer::Acquired(_)), Ok(Written::Applied)))
    };
    join_all((0..64).map(|_| pay())).await.into_iter().all(|paid| paid)
}

// The driver's own connection may then wait for itself for ever.
// proves: I-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_under_load_goes_on_after_a_node_was_killed_and_came_back() {
    let mut cluster = tokio::task::spawn_blocking(Redis::cluster).await.unwrap();
    let store = store(cluster.urls()).await;
    let load = Load::on(&store);
    for node in 0..3 {
        Load::counts(&load.granted, 1000).await;
        cluster = with(cluster, move |cluster| cluster.kill9(node)).await;
        Load::counts(&load.failed, 300).await;
        cluster = with(cluster, move |cluster| cluster.restart(node)).await;
        let served = async {
            while !serves_every_key(&store).await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, served).await.expect("the same store serves every key again");
    }
    load.stop.store(true, Ordering::SeqCst);
    for caller in load.callers {
        caller.await.unwrap();
    }
}
