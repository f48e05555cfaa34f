//! Redis under Sentinel: the contract, and a failover.
#![cfg(all(feature = "testing", feature = "redis-sentinel"))]
#![cfg_attr(
    all(feature = "testing", feature = "redis-sentinel"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, SentinelConnection, Terms, Written};
use probity_idempotency::testing::Subject;
use probity_idempotency::*;
use redis::RedisConnectionInfo;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use testkit::{Proxy, Redis};

/// The Sentinels that the rules share, until this process ends.
static SENTINELS: LazyLock<(Vec<String>, &str)> = LazyLock::new(|| {
    let sentinels = Box::leak(Box::new(Redis::sentinels()));
    (sentinels.urls(), sentinels.service())
});

async fn store(urls: &[String], service: &str) -> RedisStore<SentinelConnection> {
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    RedisStore::connect_sentinel(&urls, service).await.unwrap()
}

async fn subject() -> Subject {
    let (urls, service) = tokio::task::spawn_blocking(|| LazyLock::force(&SENTINELS)).await.unwrap();
    Subject::new(Arc::new(store(urls, service).await))
}

// proves: I-1
probity_idempotency::store_contract!(subject);

/// Longer than a failover takes, on the slowest machine.
const KEPT: Duration = Duration::from_secs(3600);

fn a_claim(number: u8) -> Claim {
    Claim {
        record: RecordId::from_bytes([number; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Opaque,
        terms: Terms { lease: KEPT, lease_cap: KEPT, ..Terms::default() },
    }
}

/// Repeats a claim until it is answered, always with the same token.
async fn persist(store: &RedisStore<SentinelConnection>, claim: &Claim) -> Answer {
    let again = async {
        loop {
            if let Ok(answer) = store.claim(claim).await {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), again).await.unwrap()
}

// A failover keeps the writes that the replica has received. Other writes are lost: docs/redis.md.
// proves: I-2
#[tokio::test]
async fn a_failover_keeps_replicated_records_and_the_same_store_goes_on() {
    let sentinels = tokio::task::spawn_blocking(Redis::sentinels).await.unwrap();
    let store = store(&sentinels.urls(), sentinels.service()).await;
    let (done, running) = (a_claim(1), a_claim(2));
    let recording = Recording::new(201).body("paid");
    for claim in [&done, &running] {
        assert!(matches!(store.claim(claim).await.unwrap(), Answer::Acquired(_)));
    }
    assert_eq!(store.complete(&done.holder(), &recording, KEPT).await.unwrap(), Written::Applied);
    let client = redis::Client::open(sentinels.master_url()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let mut other = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let (_, heard): ((), u64) = redis::pipe()
        .cmd("SET")
        .arg(&["marker", "1"])
        .cmd("WAIT")
        .arg(&[1, 0])
        .query_async(&mut other)
        .await
        .unwrap();
    assert_eq!(heard, 1);
    let _sentinels = tokio::task::spawn_blocking(move || {
        let mut sentinels = sentinels;
        sentinels.fail_over();
        sentinels
    })
    .await
    .unwrap();
    let retry = Claim { token: OwnerToken::generate().unwrap(), ..done };
    assert_eq!(persist(&store, &retry).await, Answer::Replay(recording));
    let duplicate = Claim { token: OwnerToken::generate().unwrap(), ..running };
    assert!(matches!(persist(&store, &duplicate).await, Answer::InFlight { .. }));
    assert_eq!(
        store.complete(&running.holder(), &Recording::new(200), KEPT).await.unwrap(),
        Written::Applied
    );
    assert!(matches!(persist(&store, &a_claim(3)).await, Answer::Acquired(_)));
}

fn logging_in(urls: Vec<String>, service: &str, password: &str) -> SentinelClient {
    let login = RedisConnectionInfo::default().set_username("payments").set_password(password);
    let master = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
    SentinelClient::build(urls, String::from(service), Some(master), SentinelServerType::Master).unwrap()
}

#[tokio::test]
async fn a_master_with_users_is_logged_in_to_by_name() {
    let sentinels = tokio::task::spawn_blocking(Redis::sentinels).await.unwrap();
    let client = redis::Client::open(sentinels.master_url()).unwrap();
    let mut master = client.get_multiplexed_async_connection().await.unwrap();
    let rights = ["SETUSER", "payments", "on", ">right", "~*", "+@all"];
    redis::cmd("ACL").arg(&rights).exec_async(&mut master).await.unwrap();
    let service = sentinels.service();

    let right = logging_in(sentinels.urls(), service, "right");
    let store = RedisStore::connect_sentinel_client(right).await.unwrap();
    assert!(matches!(store.claim(&a_claim(1)).await.unwrap(), Answer::Acquired(_)));
    let clients: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut master).await.unwrap();
    assert!(clients.lines().any(|client| client.contains(" user=payments ")), "{clients}");

    let wrong = logging_in(sentinels.urls(), service, "wrong");
    let refused = RedisStore::connect_sentinel_client(wrong).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{refused:?}");
    assert!(!format!("{refused:?}").contains("wrong"), "{refused:?}");
}

#[tokio::test]
async fn callers_share_one_search_for_the_master_when_no_sentinel_answers() {
    const CALLERS: u8 = 24;
    let sentinels = tokio::task::spawn_blocking(Redis::sentinels).await.unwrap();
    let sentinel = sentinels.urls()[0].trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let proxy = Proxy::before(sentinel.parse().unwrap());
    let store = store(&[format!("redis://{}/", proxy.address())], sentinels.service()).await;
    assert!(matches!(store.claim(&a_claim(0)).await.unwrap(), Answer::Acquired(_)));
    proxy.hold_new();
    tokio::task::spawn_blocking(move || drop(sentinels)).await.unwrap();
    // The call that uses the broken connection notices the failover.
    assert!(store.claim(&a_claim(1)).await.is_err());
    let calls: Vec<_> = (0..CALLERS)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.claim(&a_claim(2 + number)).await.unwrap_err() })
        })
        .collect();
    for call in calls {
        let refused = call.await.unwrap();
        assert_eq!(
            (refused.kind(), refused.effect()),
            (ErrorKind::Unavailable, Effect::NotApplied),
            "{refused:?}"
        );
    }
    let attempts = proxy.held();
    assert!(attempts < usize::from(CALLERS) / 2, "{attempts} attempts for {CALLERS} callers");
}
