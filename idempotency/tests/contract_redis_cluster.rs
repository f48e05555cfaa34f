//! A Redis Cluster of three masters keeps the contract.
#![cfg(all(feature = "testing", feature = "redis-cluster"))]
#![cfg_attr(
    all(feature = "testing", feature = "redis-cluster"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use probity_idempotency::RedisStore;
use probity_idempotency::testing::Subject;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use testkit::{Redis, RedisCluster};

static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(Redis::cluster);

async fn connection(urls: Vec<String>) -> ClusterConnection {
    let client = ClusterClientBuilder::new(urls).response_timeout(Duration::from_secs(2)).build().unwrap();
    client.get_async_connection().await.unwrap()
}

async fn subject() -> Subject {
    let urls = tokio::task::spawn_blocking(|| CLUSTER.urls().to_vec()).await.unwrap();
    Subject::new(Arc::new(RedisStore::new(connection(urls).await)))
}

// proves: I-1
probity_idempotency::store_contract!(subject);

#[tokio::test]
async fn every_master_is_asked_whether_it_can_be_trusted() {
    let cluster = tokio::task::spawn_blocking(Redis::cluster).await.unwrap();
    let store = RedisStore::checked(connection(cluster.urls().to_vec()).await).await.unwrap();
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
