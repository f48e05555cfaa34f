//! Authentication: the right requests are let in, the wrong ones are not, and the refusals do not tell a caller why.

use crate::platform::{Platform, SERVICE, problem, serve, sign, sign_at, unique};
use http::Method;
use reqwest::Response;
use serde_json::{Value, json};
use service_shell::signature::{SignedBy, body_sha256};

const PATH: &str = "/api/v1/payments?x=1";
const BODY: &str = r#"{"amount":1}"#;

/// The question of a gateway about a request that it received.
async fn ask(platform: &Platform, signed: &SignedBy, address: &str) -> Response {
    let body = json!({
        "api_key": signed.api_key, "timestamp": signed.timestamp, "nonce": signed.nonce,
        "signature": signed.signature, "method": "POST", "path_and_query": PATH,
        "body_sha256": body_sha256(BODY.as_bytes()), "address": address,
    });
    let request = platform.client.post(platform.url("/internal/v1/authenticate"));
    request.bearer_auth(SERVICE).json(&body).send().await.unwrap()
}

fn good(key: &Value) -> SignedBy {
    sign(key, &Method::POST, PATH, &format!("n-{}", unique()), BODY)
}

fn forged(key: &Value) -> SignedBy {
    SignedBy { signature: "0".repeat(64), ..good(key) }
}

#[tokio::test]
async fn a_signed_request_names_its_merchant_and_mode_once() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let signed = good(merchant.key("production"));
    let who: Value = ask(&platform, &signed, "10.0.0.1").await.json().await.unwrap();
    assert_eq!(who, json!({"merchant_id": merchant.id, "mode": "production"}));
    problem(ask(&platform, &signed, "10.0.0.1").await, 401).await;
}

#[tokio::test]
async fn every_failure_is_the_same_answer() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let key = merchant.key("test");
    let now = chrono::Utc::now().timestamp();
    let nonce = || format!("n-{}", unique());
    let unknown = json!({"api_key": "pk_test_NOBODY", "api_secret": "x"});
    let other_secret = json!({"api_key": key["api_key"], "api_secret": "x"});
    let refused = [
        forged(key),
        good(&unknown),
        good(&other_secret),
        sign(key, &Method::GET, PATH, &nonce(), BODY),
        sign(key, &Method::POST, "/api/v1/payments?x=2", &nonce(), BODY),
        sign(key, &Method::POST, PATH, &nonce(), r#"{"amount":2}"#),
        sign_at(key, &Method::POST, PATH, &nonce(), BODY, now - 3600),
        sign_at(key, &Method::POST, PATH, &nonce(), BODY, now + 3600),
        SignedBy { nonce: "another".to_owned(), ..good(key) },
        SignedBy { timestamp: "soon".to_owned(), ..good(key) },
        SignedBy { nonce: String::new(), ..good(key) },
        SignedBy { nonce: "n".repeat(300), ..good(key) },
    ];
    for (index, signed) in refused.iter().enumerate() {
        // An address of its own, so that the count of failures does not decide.
        let reply = ask(&platform, signed, &format!("10.0.1.{index}")).await;
        assert_eq!(problem(reply, 401).await["detail"], "Authentication failed", "{index}");
    }
    assert_eq!(platform.number("SELECT COUNT(*) FROM used_nonces").await, 0);
    assert_eq!(ask(&platform, &good(key), "10.0.0.1").await.status(), 200);
}

#[tokio::test]
async fn of_many_concurrent_uses_of_one_nonce_exactly_one_is_let_in() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let signed = good(merchant.key("test"));
    let one = || async { ask(&platform, &signed, "10.0.0.1").await.status().as_u16() };
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    let mut statuses = [a, b, c, d];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401, 401, 401]);
}

#[tokio::test]
async fn ten_failures_lock_the_key_for_this_address_and_no_other() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let key = merchant.key("test");
    for _ in 0..10 {
        problem(ask(&platform, &forged(key), "10.0.0.1").await, 401).await;
    }
    let locked = ask(&platform, &good(key), "10.0.0.1").await;
    let wait: u64 = locked.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    problem(locked, 429).await;
    assert_eq!(ask(&platform, &good(key), "10.0.0.2").await.status(), 200);
    assert_eq!(ask(&platform, &good(merchant.key("production")), "10.0.0.1").await.status(), 200);
}

#[tokio::test]
async fn the_lock_ends_with_its_window() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let key = merchant.key("test");
    for _ in 0..10 {
        ask(&platform, &forged(key), "10.0.0.1").await;
    }
    sqlx::query("UPDATE auth_failures SET window_started = window_started - 901")
        .execute(&platform.pool)
        .await
        .unwrap();
    problem(ask(&platform, &forged(key), "10.0.0.1").await, 401).await;
    assert_eq!(platform.number("SELECT failures FROM auth_failures").await, 1, "a new window begins at one");
    assert_eq!(ask(&platform, &good(key), "10.0.0.1").await.status(), 200);
}

#[tokio::test]
async fn a_success_resets_the_count() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let key = merchant.key("test");
    for _ in 0..2 {
        for _ in 0..9 {
            problem(ask(&platform, &forged(key), "10.0.0.1").await, 401).await;
        }
        assert_eq!(ask(&platform, &good(key), "10.0.0.1").await.status(), 200);
    }
    assert_eq!(platform.number("SELECT COUNT(*) FROM auth_failures").await, 0);
}

#[tokio::test]
async fn only_a_service_may_ask() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let body = json!({"api_key": merchant.key("test")["api_key"]});
    problem(platform.post("/internal/v1/authenticate", &body).await, 401).await;
    let incomplete = platform.client.post(platform.url("/internal/v1/authenticate")).bearer_auth(SERVICE);
    problem(incomplete.json(&body).send().await.unwrap(), 400).await;
}

#[tokio::test]
async fn a_request_without_a_signature_or_with_a_changed_body_is_not_let_in() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let keys = "/api/v1/api-keys";
    problem(platform.client.get(platform.url(keys)).send().await.unwrap(), 401).await;
    let signed = sign(merchant.key("test"), &Method::POST, keys, "n-1", r#"{"mode":"test"}"#);
    let changed = platform.with(&signed, Method::POST, keys, r#"{"mode":"production"}"#);
    problem(changed.send().await.unwrap(), 401).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM api_keys").await, 2);
}

#[tokio::test]
async fn nonces_and_failures_that_decide_nothing_any_more_are_forgotten() {
    let platform = Platform::start().await;
    let now = chrono::Utc::now().timestamp();
    for (nonce, at) in [("old", 1), ("older", 2), ("new", now)] {
        let nonces = "INSERT INTO used_nonces (api_key_id, nonce, used_at) VALUES ($1, $2, $3)";
        let nonces = sqlx::query(nonces).bind(service_shell::Id::new()).bind(nonce).bind(at);
        nonces.execute(&platform.pool).await.unwrap();
        let failures =
            "INSERT INTO auth_failures (api_key, address, failures, window_started) VALUES ($1, 'a', 1, $2)";
        sqlx::query(failures).bind(nonce).bind(at).execute(&platform.pool).await.unwrap();
    }
    let left = "SELECT (SELECT COUNT(*) FROM used_nonces) + (SELECT COUNT(*) FROM auth_failures)";
    assert_eq!(platform.number(left).await, 6);
    // The first purge of a process is at its start.
    serve(platform.settings.clone()).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while platform.number(left).await > 2 {
        assert!(tokio::time::Instant::now() < deadline, "old rows stay");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let new = "SELECT COUNT(*) FROM used_nonces WHERE nonce = 'new'";
    assert_eq!((platform.number(left).await, platform.number(new).await), (2, 1));
}
