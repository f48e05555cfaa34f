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
use testkit::{Redis, RedisCluster};

static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(Redis::cluster);

async fn subject() -> Subject {
    let urls = tokio::task::spawn_blocking(|| CLUSTER.urls().to_vec()).await.unwrap();
    let client = ClusterClientBuilder::new(urls).response_timeout(Duration::from_secs(2)).build().unwrap();
    Subject::new(Arc::new(RedisStore::new(client.get_async_connection().await.unwrap())))
}

// proves: I-1
probity_idempotency::store_contract!(subject);
