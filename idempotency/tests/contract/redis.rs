//! Redis keeps the contract.
#![cfg(all(feature = "testing", feature = "redis"))]
#![cfg_attr(
    all(feature = "testing", feature = "redis"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;

use probity_idempotency::RedisStore;
use probity_idempotency::testing::Subject;

async fn subject() -> Subject {
    let server = tokio::task::spawn_blocking(testkit::Redis::shared).await.unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap().prefix(server.key_prefix());
    Subject::new(Arc::new(store))
}

// proves: I-1
probity_idempotency::store_contract!(subject);
