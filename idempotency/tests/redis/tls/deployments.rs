//! A Cluster and Sentinels over TLS, and servers that require a client certificate or an older TLS.

use std::time::Duration;

use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::*;
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, IntoConnectionInfo, TlsMode};
use testkit::Redis;

use super::certificates::{Authority, reasons};
use super::{Trusted, trusted};

const KEPT: Duration = Duration::from_secs(3600);

fn a_claim(number: u8) -> Claim {
    Claim {
        record: RecordId::from_bytes([number; 32]),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects: Effects::Opaque,
        terms: Terms::default(),
    }
}

/// Claims and completes records enough that each node of a cluster has some.
async fn pays_each_key_once(store: &dyn IdempotencyManager) {
    for number in 0..32 {
        let claim = a_claim(number);
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        let recording = Recording::new(201).body(format!("paid {number}"));
        assert_eq!(store.complete(&claim.holder(), &recording, KEPT).await.unwrap(), Written::Applied);
        assert_eq!(store.claim(&a_claim(number)).await.unwrap(), Answer::Replay(recording));
    }
}

// proves: I-1
#[tokio::test]
async fn a_cluster_over_tls_pays_each_key_once() {
    let Trusted { authority, files, .. } = trusted().await;
    let cluster = tokio::task::spawn_blocking(|| Redis::cluster_tls(files)).await.unwrap();
    let nodes = ClusterClientBuilder::new(cluster.urls().to_vec()).certs(authority.trusted());
    pays_each_key_once(&RedisStore::connect_cluster_builder(nodes).await.unwrap()).await;
    // This client has no trusted root.
    let urls: Vec<&str> = cluster.urls().iter().map(String::as_str).collect();
    let refused = RedisStore::connect_cluster(&urls).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::NotApplied, "{}", reasons(&refused));
}

fn through(urls: &[String], service: &str, authority: &Authority) -> SentinelClient {
    let addresses: Vec<ConnectionAddr> =
        urls.iter().map(|url| url.as_str().into_connection_info().unwrap().addr().clone()).collect();
    SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)
        .unwrap()
        .set_client_to_sentinel_certificates(authority.trusted())
        .set_client_to_redis_tls_mode(TlsMode::Secure)
        .set_client_to_redis_certificates(authority.trusted())
        .build()
        .unwrap()
}

// proves: I-1
#[tokio::test]
async fn sentinels_over_tls_lead_to_the_master_and_to_the_next_one() {
    let Trusted { authority, files, .. } = trusted().await;
    let sentinels = tokio::task::spawn_blocking(|| Redis::sentinels_tls(files)).await.unwrap();
    let client = through(&sentinels.urls(), sentinels.service(), authority);
    let store = RedisStore::connect_sentinel_client(client).await.unwrap();
    pays_each_key_once(&store).await;
    let _sentinels = tokio::task::spawn_blocking(move || {
        let mut sentinels = sentinels;
        sentinels.fail_over();
        sentinels
    })
    .await
    .unwrap();
    let claim = a_claim(200);
    let again = async {
        loop {
            match store.claim(&claim).await {
                Ok(answer) => return answer,
                Err(error) => assert_ne!(error.kind(), ErrorKind::Rejected, "{}", reasons(&error)),
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(120), again).await.unwrap();
    assert!(matches!(answer, Answer::Acquired(_)), "{answer:?}");
}

#[tokio::test]
async fn sentinels_with_untrusted_certificates_are_refused() {
    let Trusted { files, .. } = trusted().await;
    let sentinels = tokio::task::spawn_blocking(|| Redis::sentinels_tls(files)).await.unwrap();
    let urls = sentinels.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let refused = RedisStore::connect_sentinel(&urls, sentinels.service()).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.effect()),
        (ErrorKind::Rejected, Effect::NotApplied),
        "{}",
        reasons(&refused)
    );
}

#[tokio::test]
async fn one_sentinel_over_tls_requires_a_master_over_tls() {
    let sentinels = tokio::task::spawn_blocking(Redis::sentinels).await.unwrap();
    let [clear, ..] = &sentinels.urls()[..] else { panic!("no Sentinel") };
    assert!(RedisStore::connect_sentinel(&[clear], sentinels.service()).await.is_ok());
    // The first Sentinel still answers, and the master still speaks in the clear only.
    let secure = clear.replace("redis://", "rediss://");
    let refused = RedisStore::connect_sentinel(&[clear, &secure], sentinels.service()).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::NotApplied, "{}", reasons(&refused));
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let Trusted { authority, files, .. } = trusted().await;
    let server = tokio::task::spawn_blocking(|| Redis::start_tls(files, &["--tls-auth-clients", "yes"]))
        .await
        .unwrap();
    let certificates = authority.trusted_by(authority);
    let store = RedisStore::connect_tls(server.url(), certificates.clone()).await.unwrap();
    let shown = format!("{store:?} {certificates:?}");
    assert!(!shown.contains("BEGIN") && !shown.contains("45, 45, 45, 45"), "{shown}");
    pays_each_key_once(&store).await;
    let stranger = Authority::new();
    for (who, certificates) in
        [("nobody", authority.trusted()), ("a stranger", authority.trusted_by(&stranger))]
    {
        let refused = RedisStore::connect_tls(server.url(), certificates).await.unwrap_err();
        assert_eq!(refused.effect(), Effect::NotApplied, "{who}: {}", reasons(&refused));
        // In TLS 1.3 the server refuses after the handshake, and its reason may be lost with the connection.
        let kind = refused.kind();
        assert!(
            matches!(kind, ErrorKind::Rejected | ErrorKind::Unavailable),
            "{who}: {kind:?} {}",
            reasons(&refused)
        );
    }
}

#[tokio::test]
async fn a_server_that_speaks_only_tls_1_2_is_understood() {
    let Trusted { authority, files, .. } = trusted().await;
    let server = tokio::task::spawn_blocking(|| Redis::start_tls(files, &["--tls-protocols", "TLSv1.2"]))
        .await
        .unwrap();
    let store = RedisStore::connect_tls(server.url(), authority.trusted()).await.unwrap();
    pays_each_key_once(&store).await;
}
