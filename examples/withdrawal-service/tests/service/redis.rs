//! With `REDIS_URL` the records of requests live in Redis.

use http::StatusCode;
use serde_json::Value;
use testkit::Redis;

use crate::platform::{Platform, SERVICE, account};

const ACCOUNTS: &str = "/api/v1/bank-accounts";

/// A request is replayed from Redis: by another process, and after Redis was killed. Without Redis the service refuses
/// what it cannot remember, and says that it is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_remembered_by_redis_alone() {
    testkit::time_limit();
    let mut redis = Redis::start();
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let mut bases = Vec::new();
    for _ in 0..2 {
        bases.push(platform.serve_with(&[("REDIS_URL", redis.url())]).await);
    }
    let post = async |base: &str| {
        let request = platform.client.post(format!("{base}{ACCOUNTS}")).bearer_auth(SERVICE);
        let request = request.header("x-merchant-id", merchant.to_string()).header("idempotency-key", "once");
        let request = request.header("x-merchant-mode", "production");
        request.json(&account("acct_redis")).send().await.unwrap()
    };
    let first = post(&bases[0]).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    assert!(first.headers().get("idempotent-replayed").is_none());
    let first = first.bytes().await.unwrap();
    let again = post(&bases[1]).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.bytes().await.unwrap(), first);
    assert!(
        post(&platform.base).await.headers().get("idempotent-replayed").is_none(),
        "SQL does not know it"
    );

    redis.kill9();
    assert_eq!(post(&bases[0]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready = platform.client.get(format!("{}/health/ready", bases[0])).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json::<Value>().await.unwrap()["dependencies"]["redis"]["status"], "down");
    redis.restart();
    let mut after = post(&bases[0]).await;
    while after.status() == StatusCode::SERVICE_UNAVAILABLE {
        after = post(&bases[0]).await;
    }
    assert_eq!(after.headers()["idempotent-replayed"], "true");
    assert_eq!(after.bytes().await.unwrap(), first);
}
