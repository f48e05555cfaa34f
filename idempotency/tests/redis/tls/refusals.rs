//! Servers with a wrong certificate, and impossible settings.

use probity_idempotency::*;
use redis::{ClientTlsConfig, TlsCertificates};
use testkit::Redis;

use super::certificates::{Authority, reasons};
use super::{Trusted, trusted};

/// It is refused for good, and says why.
fn assert_refused(result: Result<RedisStore, StoreError>, why: &str) {
    let refused = result.unwrap_err();
    let reasons = reasons(&refused);
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{reasons}");
    assert!(reasons.contains(why), "{reasons}");
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_refused() {
    let Trusted { server, .. } = trusted().await;
    // The system's roots do not know our authority.
    assert_refused(RedisStore::connect(server.url()).await, "invalid peer certificate");
    let other = Authority::new();
    assert_refused(RedisStore::connect_tls(server.url(), other.trusted()).await, "invalid peer certificate");
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_host_is_refused() {
    let Trusted { authority, server, .. } = trusted().await;
    let url = server.url().replace("127.0.0.1", "localhost");
    assert_refused(RedisStore::connect_tls(&url, authority.trusted()).await, "invalid peer certificate");
}

#[tokio::test]
async fn a_url_cannot_switch_the_check_off() {
    let Trusted { server, .. } = trusted().await;
    assert_refused(RedisStore::connect(&format!("{}#insecure", server.url())).await, "insecure");
}

#[tokio::test]
async fn a_server_in_the_clear_is_refused() {
    let Trusted { authority, .. } = trusted().await;
    let plain = tokio::task::spawn_blocking(Redis::start).await.unwrap();
    let url = plain.url().replace("redis://", "rediss://");
    let refused = RedisStore::connect_tls(&url, authority.trusted()).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::NotApplied, "{}", reasons(&refused));
}

#[tokio::test]
async fn invalid_certificates_and_a_url_without_tls_are_refused() {
    let Trusted { authority, server, .. } = trusted().await;
    let clear = server.url().replace("rediss://", "redis://");
    assert_refused(RedisStore::connect_tls(&clear, authority.trusted()).await, "rediss://");
    let broken = b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n".to_vec();
    let no_root = TlsCertificates { root_cert: Some(broken.clone()), client_tls: None };
    assert_refused(RedisStore::connect_tls(server.url(), no_root).await, "root certificate");
    let client = ClientTlsConfig { client_cert: broken, client_key: Vec::new() };
    let no_client = TlsCertificates { client_tls: Some(client), ..authority.trusted() };
    assert_refused(RedisStore::connect_tls(server.url(), no_client).await, "client certificate");
    // A file without a certificate trusts no server.
    let empty = TlsCertificates { root_cert: Some(b"not PEM".to_vec()), client_tls: None };
    assert_refused(RedisStore::connect_tls(server.url(), empty).await, "invalid peer certificate");
}
