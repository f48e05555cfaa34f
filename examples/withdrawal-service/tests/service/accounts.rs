//! Exactly one default account per merchant, once there is one.

use http::Method;
use serde_json::{Value, json};
use service_shell::Id;

use crate::platform::{NOWHERE as NOBODY, Platform, SERVICE, account, problem, serve, token_of};

const ACCOUNTS: &str = "/api/v1/bank-accounts";

async fn defaults(platform: &Platform, merchant: Id) -> Vec<Value> {
    let listed = platform.get(merchant, ACCOUNTS).await;
    let accounts = listed["bank_accounts"].as_array().unwrap().clone();
    accounts.into_iter().filter(|account| account["is_default"] == true).collect()
}

#[tokio::test]
async fn the_first_account_is_the_default_and_a_new_default_replaces_it() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    assert_eq!(defaults(&platform, merchant).await.len(), 1);
    let second: Value = platform.post(merchant, ACCOUNTS, &account("acct_slow")).await.json().await.unwrap();
    assert_eq!(second["is_default"], false);
    let mut third = account("acct_hangs");
    third["is_default"] = json!(true);
    let third: Value = platform.post(merchant, ACCOUNTS, &third).await.json().await.unwrap();
    assert_eq!(defaults(&platform, merchant).await, [third]);

    let path = format!("{ACCOUNTS}/{}/set-default", second["id"].as_str().unwrap());
    let chosen: Value = platform.post(merchant, &path, &json!({})).await.json().await.unwrap();
    assert_eq!(chosen["is_default"], true);
    assert_eq!(defaults(&platform, merchant).await, [chosen]);
}

#[tokio::test]
async fn many_concurrent_first_accounts_and_changes_leave_exactly_one_default() {
    let platform = Platform::start().await;
    let merchant = Id::new();
    let mut new = account("acct_ok");
    new["is_default"] = json!(true);
    let add = || async { platform.post(merchant, ACCOUNTS, &new).await.json::<Value>().await.unwrap() };
    let (a, b, c, d) = tokio::join!(add(), add(), add(), add());
    assert_eq!(defaults(&platform, merchant).await.len(), 1);
    let choose = async |account: &Value| {
        let path = format!("{ACCOUNTS}/{}/set-default", account["id"].as_str().unwrap());
        platform.post(merchant, &path, &json!({})).await.status().as_u16()
    };
    let chosen = tokio::join!(choose(&a), choose(&b), choose(&c), choose(&d));
    assert_eq!(chosen, (200, 200, 200, 200));
    assert_eq!(defaults(&platform, merchant).await.len(), 1);
}

#[tokio::test]
async fn somebody_elses_account_cannot_be_chosen_and_the_default_stays() {
    let platform = Platform::start().await;
    let (one, other) = (platform.merchant().await, platform.merchant().await);
    let before = defaults(&platform, one).await;
    let foreign = defaults(&platform, other).await;
    let path = format!("{ACCOUNTS}/{}/set-default", foreign[0]["id"].as_str().unwrap());
    problem(platform.post(one, &path, &json!({})).await, 404).await;
    assert_eq!(defaults(&platform, one).await, before);
    assert_eq!(defaults(&platform, other).await, foreign);
}

#[tokio::test]
async fn what_cannot_be_an_account_is_refused_and_nothing_is_written() {
    let platform = Platform::start().await;
    let merchant = Id::new();
    let with = |field: &str, value: Value| {
        let mut body = account("acct_ok");
        body[field] = value;
        body
    };
    for (field, value) in [
        ("holder", json!("")),
        ("holder", json!("a\u{7}b")),
        ("account", json!("")),
        ("account", json!("two words")),
        ("account", json!("x".repeat(65))),
        ("currency", json!("XXX")),
    ] {
        let refused = problem(platform.post(merchant, ACCOUNTS, &with(field, value)).await, 422).await;
        assert_eq!(refused["field"], field);
    }
    for (field, value) in [("iban", json!("x")), ("holder", json!(1)), ("is_default", json!("yes"))] {
        problem(platform.post(merchant, ACCOUNTS, &with(field, value)).await, 400).await;
    }
    let text = platform.call(merchant, Method::POST, ACCOUNTS).header("content-type", "text/plain").body("x");
    problem(text.send().await.unwrap(), 415).await;
    let huge = platform.call(merchant, Method::POST, ACCOUNTS).header("content-type", "application/json");
    problem(huge.body(" ".repeat(10_000_000)).send().await.unwrap(), 413).await;
    assert_eq!(platform.number("SELECT COUNT(*) FROM bank_accounts").await, 0);
}

#[tokio::test]
async fn only_a_service_that_names_the_merchant_may_call() {
    let platform = Platform::start().await;
    let client = &platform.client;
    problem(client.get(platform.url(ACCOUNTS)).send().await.unwrap(), 401).await;
    let nameless = client.get(platform.url(ACCOUNTS)).bearer_auth(crate::platform::SERVICE);
    problem(nameless.send().await.unwrap(), 400).await;
    let wrong = client.post(platform.url(ACCOUNTS)).bearer_auth(crate::platform::SERVICE);
    let wrong = wrong.header("x-merchant-id", "M-1").header("idempotency-key", "k").json(&account("acct_ok"));
    problem(wrong.send().await.unwrap(), 400).await;
    let other = client.get(platform.url(ACCOUNTS)).bearer_auth(crate::platform::SERVICE);
    let other = other.header("x-merchant-id", NOBODY).header("x-merchant-mode", "live");
    let other = problem(other.send().await.unwrap(), 400).await;
    assert!(other["detail"].as_str().unwrap().contains("X-Merchant-Mode"), "{other}");
    assert_eq!(platform.number("SELECT COUNT(*) FROM bank_accounts").await, 0);
}

#[tokio::test]
async fn accounts_are_there_after_a_restart_and_the_service_shows_its_health() {
    let mut platform = Platform::start().await;
    let merchant = platform.merchant().await;
    platform.base = serve(platform.settings.clone()).await;
    assert_eq!(defaults(&platform, merchant).await.len(), 1);
    let get = async |path: &str| platform.client.get(platform.url(path)).send().await.unwrap();
    assert_eq!(get("/health").await.status(), 200);
    assert_eq!(get("/health/ready").await.status(), 200);
    assert_eq!(get("/metrics").await.status(), 200);
    assert_eq!(get("/openapi.json").await.json::<Value>().await.unwrap()["openapi"], "3.1.0");
}

/// A route answers 401 to a caller without credentials exactly where the document asks for some, and 400 to one with
/// them where the document asks for an `Idempotency-Key` and none came.
#[tokio::test]
async fn the_document_says_which_routes_need_credentials_and_keys() {
    let platform = Platform::start().await;
    let document = platform.client.get(platform.url("/openapi.json")).send().await.unwrap();
    let document: Value = document.json().await.unwrap();
    let operations = testkit::documented(&document);
    for operation in &operations {
        let method = Method::from_bytes(operation.method.as_bytes()).unwrap();
        let url = platform.url(&operation.path.replace("{id}", NOBODY));
        let bare = platform.client.request(method.clone(), &url).send().await.unwrap().status().as_u16();
        assert_eq!(bare == 401, operation.guarded, "{operation:?} answered {bare}");
        assert!(!matches!(bare, 404 | 405), "{operation:?} answered {bare}");
        let shown = &document["paths"][&operation.path][operation.method.to_lowercase()];
        let token =
            if shown["security"][0].get("operator").is_some() { token_of("ada") } else { SERVICE.to_owned() };
        let call = platform.client.request(method, &url).bearer_auth(token).header("x-merchant-id", NOBODY);
        let call = call.header("x-merchant-mode", "test");
        let keyless = call.send().await.unwrap();
        if shown["parameters"].to_string().contains("Idempotency-Key") {
            assert!(problem(keyless, 400).await["detail"].as_str().unwrap().contains("Idempotency-Key"));
        }
    }
    assert_eq!((operations.len(), operations.iter().filter(|one| one.guarded).count()), (30, 25));
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_role_that_may_create_nothing_serves_the_tables_that_exist() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let role = platform.restricted().await;
    let base = platform.serve_with(&[("DATABASE_URL", role.url())]).await;
    let accounts = platform.client.get(format!("{base}{ACCOUNTS}")).bearer_auth(SERVICE);
    let accounts = accounts.header("x-merchant-id", merchant.to_string()).send().await.unwrap();
    assert_eq!(accounts.json::<Value>().await.unwrap()["bank_accounts"].as_array().unwrap().len(), 1);
}
