//! A merchant always has an active key of each mode, and a test key is no way to a production key.

use crate::platform::{OPERATOR, Platform, Registered, problem};
use http::Method;
use reqwest::Response;
use serde_json::{Value, json};

async fn act(platform: &Platform, with: &Value, key: &Value, verb: &str) -> Response {
    let path = format!("/api/v1/api-keys/{}/{verb}", key["id"].as_str().unwrap());
    platform.signed(with, Method::POST, &path, "").send().await.unwrap()
}

async fn add(platform: &Platform, with: &Value, mode: &str) -> Response {
    let body = json!({"mode": mode}).to_string();
    platform.signed(with, Method::POST, "/api/v1/api-keys", &body).send().await.unwrap()
}

async fn active(platform: &Platform, merchant: &Registered, mode: &str) -> usize {
    let keys = platform.operator(Method::GET, "/api/v1/api-keys").header("x-merchant-id", &merchant.id);
    let keys: Value = keys.send().await.unwrap().json().await.unwrap();
    let keys = keys["api_keys"].as_array().unwrap();
    keys.iter().filter(|key| key["mode"] == mode && key["status"] == "active").count()
}

#[tokio::test]
async fn a_rotated_key_signs_with_its_new_secret_only() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let old = merchant.key("test");
    let rotated = act(&platform, old, old, "rotate").await;
    assert_eq!(rotated.headers()["cache-control"], "no-store");
    let new: Value = rotated.json().await.unwrap();
    assert_eq!(new["api_key"], old["api_key"]);
    assert_ne!(new["api_secret"], old["api_secret"]);
    problem(act(&platform, old, old, "rotate").await, 401).await;
    assert_eq!(act(&platform, &new, old, "rotate").await.status(), 200);
}

#[tokio::test]
async fn the_last_active_key_of_a_mode_cannot_be_revoked() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let production = merchant.key("production");
    problem(act(&platform, production, production, "revoke").await, 409).await;
    let added = add(&platform, production, "production").await;
    assert_eq!(added.status(), 201);
    let second: Value = added.json().await.unwrap();
    assert_eq!(act(&platform, &second, production, "revoke").await.status(), 200);
    assert_eq!(act(&platform, &second, production, "revoke").await.status(), 200, "twice is not an error");
    problem(act(&platform, &second, production, "rotate").await, 409).await;
    problem(act(&platform, production, production, "rotate").await, 401).await;
    assert_eq!(active(&platform, &merchant, "production").await, 1);
}

#[tokio::test]
async fn of_two_concurrent_revocations_of_the_last_two_keys_exactly_one_succeeds() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let first = merchant.key("production");
    let second: Value = add(&platform, first, "production").await.json().await.unwrap();
    let path = |key: &Value| format!("/api/v1/api-keys/{}/revoke", key["id"].as_str().unwrap());
    let revoke = |key: &Value| platform.operator(Method::POST, &path(key)).send();
    let (one, other) = tokio::join!(revoke(first), revoke(&second));
    let mut statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(active(&platform, &merchant, "production").await, 1);
}

#[tokio::test]
async fn there_are_at_most_ten_active_keys_of_a_mode() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    for _ in 1..10 {
        assert_eq!(add(&platform, merchant.key("test"), "test").await.status(), 201);
    }
    problem(add(&platform, merchant.key("test"), "test").await, 409).await;
    assert_eq!(active(&platform, &merchant, "test").await, 10);
    problem(add(&platform, merchant.key("test"), "live").await, 400).await;
}

#[tokio::test]
async fn a_test_key_cannot_touch_production_keys() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    let (test, production) = (merchant.key("test"), merchant.key("production"));
    problem(add(&platform, test, "production").await, 403).await;
    problem(act(&platform, test, production, "rotate").await, 404).await;
    problem(act(&platform, test, production, "revoke").await, 404).await;
    let listed = platform.signed(test, Method::GET, "/api/v1/api-keys", "").send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    let modes: Vec<_> = listed["api_keys"].as_array().unwrap().iter().map(|key| &key["mode"]).collect();
    assert_eq!(modes, ["test"]);
    assert_eq!(act(&platform, production, test, "rotate").await.status(), 200);
    assert_eq!(active(&platform, &merchant, "production").await, 1);
}

#[tokio::test]
async fn somebody_elses_key_does_not_exist() {
    let platform = Platform::start().await;
    let (one, other) = (platform.register().await, platform.register().await);
    for verb in ["rotate", "revoke"] {
        problem(act(&platform, one.key("production"), other.key("production"), verb).await, 404).await;
    }
    let untouched = act(&platform, other.key("production"), other.key("test"), "rotate").await;
    assert_eq!(untouched.status(), 200);
}

#[tokio::test]
async fn an_operator_names_the_merchant_and_can_replace_a_lost_secret() {
    let platform = Platform::start().await;
    let merchant = platform.register().await;
    problem(platform.operator(Method::GET, "/api/v1/api-keys").send().await.unwrap(), 400).await;
    let nobody = platform.operator(Method::POST, "/api/v1/api-keys").json(&json!({"mode": "test"}));
    let nobody = nobody.header("x-merchant-id", "00000000-0000-7000-8000-000000000000");
    problem(nobody.send().await.unwrap(), 404).await;
    let path = format!("/api/v1/api-keys/{}/rotate", merchant.key("production")["id"].as_str().unwrap());
    let rotated = platform.operator(Method::POST, &path).send().await.unwrap();
    let new: Value = rotated.json().await.unwrap();
    assert_eq!(act(&platform, &new, merchant.key("test"), "rotate").await.status(), 200);
    let wrong = platform.client.post(platform.url(&path)).bearer_auth(format!("{OPERATOR}-not"));
    problem(wrong.send().await.unwrap(), 401).await;
}
