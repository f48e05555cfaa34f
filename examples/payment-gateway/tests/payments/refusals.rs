//! Requests that cannot be right: a 4xx problem that says what to fix, and nothing written anywhere.

use crate::platform::{Answer, Merchant, Platform, payment, read, serve};
use http::Method;
use serde_json::json;
use service_shell::Settings;

const PATH: &str = "/api/v1/payments";

async fn setup() -> (Platform, Merchant) {
    let platform = Platform::start().await;
    let settings = Settings::from_vars("payment-gateway", 0, platform.environment(&[])).unwrap();
    let (router, _drain) = payment_gateway::start(settings).await.unwrap();
    let merchant = platform.merchant(&serve(router).await).await;
    (platform, merchant)
}

/// Sends a body as it is, signed, with a key.
async fn send(merchant: &Merchant, body: &str) -> Answer {
    let call = merchant.signed(Method::POST, PATH, body.as_bytes()).header("idempotency-key", "key-1");
    read(call.header("content-type", "application/json")).await.unwrap()
}

fn assert_problem(answer: &Answer, status: u16, remedy: &str) {
    assert_eq!(
        (answer.status, answer.media_type.as_str()),
        (status, "application/problem+json"),
        "{answer:?}"
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(remedy), "`{detail}` does not say `{remedy}`");
}

async fn assert_nothing_written(platform: &Platform) {
    let pool = platform.gateway.open().await;
    for sql in [
        "SELECT COUNT(*) FROM payments",
        "SELECT COUNT(*) FROM saga_instances",
        "SELECT COUNT(*) FROM idempotency_records",
    ] {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
        assert_eq!(found, 0, "{sql}");
    }
    let orders = platform.orders.open().await;
    let found: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM orders").fetch_one(&orders).await.unwrap();
    assert_eq!(found, 0);
    let channel = platform.channel.open().await;
    let found: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM channel_charges").fetch_one(&channel).await.unwrap();
    assert_eq!(found, 0);
}

#[tokio::test]
async fn a_body_that_cannot_be_a_payment_says_what_to_fix() {
    let (platform, merchant) = setup().await;
    let with = |name: &str, value: serde_json::Value| {
        let mut body = payment("A-1", "card_ok");
        body[name] = value;
        body.to_string()
    };
    assert_problem(&send(&merchant, "{\"order_no\": ").await, 400, "not valid JSON");
    assert_problem(&send(&merchant, "").await, 400, "send a JSON object");
    let positional = json!(["A-1", 1250, "EUR", "card_ok", null, null, null]).to_string();
    assert_problem(&send(&merchant, &positional).await, 400, "send a JSON object");
    assert_problem(&send(&merchant, &with("payment_method", json!("bitcoin"))).await, 422, "payment_method");
    assert_problem(&send(&merchant, &with("channel", json!("nonsuch"))).await, 422, "channel");
    let bell = json!([{"name": "a\u{7}b", "quantity": 1, "unit_price": 1250}]);
    assert_problem(&send(&merchant, &with("items", bell)).await, 422, "without control characters");
    assert_problem(&send(&merchant, &with("amount", json!("12"))).await, 400, "expected a whole number");
    assert_problem(&send(&merchant, &with("currency", json!("XXX"))).await, 422, "currency must be one of");
    assert_problem(&send(&merchant, &with("amount", json!(-1))).await, 422, "amount must be greater than 0");
    assert_problem(&send(&merchant, &with("amount", json!(0))).await, 422, "amount must be greater than 0");
    assert_problem(&send(&merchant, &with("amount", json!(i64::MAX))).await, 422, "amount must be at most");
    let overflow = with("amount", json!(1)).replace("\"amount\":1", "\"amount\":99999999999999999999");
    assert_problem(&send(&merchant, &overflow).await, 400, "does not fit");
    assert_problem(&send(&merchant, &with("amount", json!(12.5))).await, 400, "does not fit");
    assert_problem(&send(&merchant, &with("amonut", json!(1))).await, 400, "unknown field `amonut`");
    let plain = merchant.signed(Method::POST, PATH, b"{}").header("idempotency-key", "key-1");
    assert_problem(&read(plain).await.unwrap(), 415, "application/json");
    assert_nothing_written(&platform).await;
}

#[tokio::test]
async fn a_key_that_is_missing_or_endless_is_refused() {
    let (platform, merchant) = setup().await;
    let body = payment("A-1", "card_ok").to_string();
    let call =
        || merchant.signed(Method::POST, PATH, body.as_bytes()).header("content-type", "application/json");
    assert_problem(&read(call()).await.unwrap(), 400, "Idempotency-Key");
    let endless = call().header("idempotency-key", "k".repeat(300));
    assert_problem(&read(endless).await.unwrap(), 400, "255");
    assert_nothing_written(&platform).await;
}

#[tokio::test]
async fn ten_megabytes_are_too_many() {
    let (platform, merchant) = setup().await;
    let answer = send(&merchant, &"x".repeat(10 * 1024 * 1024)).await;
    assert_problem(&answer, 413, "send less");
    assert_nothing_written(&platform).await;
}

#[tokio::test]
async fn every_failure_of_a_signature_is_the_same_refusal() {
    let (platform, merchant) = setup().await;
    let body = payment("A-1", "card_ok").to_string();
    let json = |call: reqwest::RequestBuilder| {
        call.header("content-type", "application/json").header("idempotency-key", "key-1")
    };
    let url = format!("{}{PATH}", merchant.base);
    let unsigned = json(merchant.http.post(&url).body(body.clone()));
    let stranger = Merchant { api_key: "pk_test_nobody".to_owned(), ..merchant.clone() };
    let wrong = Merchant { secret: "sk_test_wrong".to_owned(), ..merchant.clone() };
    let changed = merchant.signed(Method::POST, PATH, b"{}").body(body.clone());
    let elsewhere = merchant.signed(Method::POST, "/api/v1/refunds", body.as_bytes()).build().unwrap();
    let moved = elsewhere
        .headers()
        .iter()
        .fold(merchant.http.post(&url).body(body.clone()), |call, (n, v)| call.header(n, v));
    for call in [
        unsigned,
        json(stranger.signed(Method::POST, PATH, body.as_bytes())),
        json(wrong.signed(Method::POST, PATH, body.as_bytes())),
        json(changed),
        json(moved),
    ] {
        let answer = read(call).await.unwrap();
        assert_problem(&answer, 401, "Authentication failed");
        assert_eq!(answer.json()["detail"], "Authentication failed");
    }
    assert_nothing_written(&platform).await;
}

#[tokio::test]
async fn a_nonce_is_good_for_one_request() {
    let (_platform, merchant) = setup().await;
    let first = merchant.signed(Method::GET, PATH, b"").build().unwrap();
    let again = first.try_clone().unwrap();
    assert_eq!(merchant.http.execute(first).await.unwrap().status().as_u16(), 200);
    let replayed = merchant.http.execute(again).await.unwrap();
    assert_eq!(replayed.status().as_u16(), 401);
    assert_eq!(replayed.headers()["content-type"], "application/problem+json");
}
