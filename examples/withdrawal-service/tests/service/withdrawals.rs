//! A withdrawal is asked for once, seen by its merchant only, and stopped while that is possible.

use http::Method;
use serde_json::{Value, json};
use service_shell::Id;

use crate::execution::rest;
use crate::platform::{Platform, account, entry, key, problem, withdrawal};

const WITHDRAWALS: &str = "/api/v1/withdrawals";
const COUNT: &str = "SELECT COUNT(*) FROM withdrawals";

#[tokio::test]
async fn a_withdrawal_goes_to_the_default_account_with_its_fee_and_its_number_of_approvals() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let reply = platform.post(merchant, WITHDRAWALS, &withdrawal(250_000)).await;
    let location = reply.headers()["location"].to_str().unwrap().to_owned();
    let created: Value = reply.json().await.unwrap();
    assert_eq!(created["status"], "pending");
    assert_eq!((&created["fee"], &created["approvals_required"]), (&json!(10_000), &json!(2)));
    assert!(created["withdrawal_no"].as_str().unwrap().starts_with("WD-"));
    assert_eq!(platform.get(merchant, &location).await, created);
    let listed = platform.get(merchant, &format!("{WITHDRAWALS}?limit=10")).await;
    assert_eq!(listed, json!({"withdrawals": [created], "next": null}));
}

#[tokio::test]
async fn the_same_key_gives_the_same_bytes_and_one_withdrawal() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let key = key();
    let send = async |body: Value| {
        let request = platform.call(merchant, Method::POST, WITHDRAWALS);
        let mut request = request.json(&body).build().unwrap();
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        platform.client.execute(request).await.unwrap()
    };
    let first = send(withdrawal(10)).await;
    assert_eq!(first.status(), 201);
    let (location, first) = (first.headers()["location"].clone(), first.bytes().await.unwrap());
    let again = send(withdrawal(10)).await;
    assert_eq!(
        (again.status().as_u16(), &again.headers()["idempotent-replayed"]),
        (201, &"true".parse().unwrap())
    );
    assert_eq!(again.headers()["location"], location);
    assert_eq!(again.bytes().await.unwrap(), first);
    problem(send(withdrawal(11)).await, 422).await;
    assert_eq!(platform.number(COUNT).await, 1);
}

#[tokio::test]
async fn an_attempt_lost_after_its_commit_is_taken_over_without_a_second_withdrawal() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let send = || async {
        let request = platform.call(merchant, Method::POST, WITHDRAWALS).json(&withdrawal(10));
        let mut request = request.build().unwrap();
        request.headers_mut().insert("idempotency-key", "lost".parse().unwrap());
        platform.client.execute(request).await.unwrap().json::<Value>().await.unwrap()
    };
    let first = send().await;
    // What a crash between the commit and the record of the answer leaves: the row, and no record.
    sqlx::query("DELETE FROM idempotency_records").execute(&platform.pool).await.unwrap();
    assert_eq!(send().await, first);
    assert_eq!(platform.number(COUNT).await, 1);
}

#[tokio::test]
async fn a_key_that_is_used_again_after_its_record_was_purged_does_not_answer_with_another_row() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let send = async |path: &str, body: &Value| {
        let request = platform.call(merchant, Method::POST, path).json(body);
        let mut request = request.build().unwrap();
        request.headers_mut().insert("idempotency-key", "day-1".parse().unwrap());
        sqlx::query("DELETE FROM idempotency_records").execute(&platform.pool).await.unwrap();
        platform.client.execute(request).await.unwrap()
    };
    let mut chosen = account("acct_ok");
    chosen["is_default"] = json!(true);
    for (path, made, other) in [
        (WITHDRAWALS, withdrawal(10), withdrawal(11)),
        ("/api/v1/bank-accounts", account("acct_ok"), account("acct_slow")),
    ] {
        let first: Value = send(path, &made).await.json().await.unwrap();
        assert_eq!(send(path, &made).await.json::<Value>().await.unwrap(), first, "{path}");
        let refused = problem(send(path, &other).await, 422).await;
        assert!(refused["type"].as_str().unwrap().ends_with("#idempotency-key-reused"), "{refused}");
    }
    // Another wish to be the default is another request, also where the rest is the same.
    problem(send("/api/v1/bank-accounts", &chosen).await, 422).await;
    assert_eq!(platform.number(COUNT).await, 1);
    assert_eq!(platform.number("SELECT COUNT(*) FROM bank_accounts WHERE account = 'acct_ok'").await, 2);
}

#[tokio::test]
async fn what_cannot_be_withdrawn_is_refused_with_what_to_fix_and_nothing_is_written() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let with = |field: &str, value: Value| {
        let mut body = withdrawal(10);
        body[field] = value;
        body
    };
    for (field, value) in [
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("amount", json!(i64::MAX)),
        ("currency", json!("XXX")),
        ("currency", json!("EUR")),
        ("bank_account_id", json!(Id::new())),
    ] {
        let refused = problem(platform.post(merchant, WITHDRAWALS, &with(field, value)).await, 422).await;
        assert_eq!(refused["field"], field);
    }
    for (field, value) in [
        ("amount", json!(1.5)),
        ("amount", json!("100")),
        ("amount", json!(9_223_372_036_854_775_808_u64)),
        ("speed", json!("fast")),
        ("bank_account_id", json!("mine")),
        ("fee", json!(0)),
    ] {
        problem(platform.post(merchant, WITHDRAWALS, &with(field, value)).await, 400).await;
    }
    let keyless = platform.client.post(platform.url(WITHDRAWALS)).bearer_auth(crate::platform::SERVICE);
    let keyless =
        keyless.header("x-merchant-id", merchant.to_string()).header("x-merchant-mode", "production");
    let keyless = keyless.json(&withdrawal(10));
    problem(keyless.send().await.unwrap(), 400).await;
    let mut long = platform.call(merchant, Method::POST, WITHDRAWALS).json(&withdrawal(10)).build().unwrap();
    long.headers_mut().insert("idempotency-key", "k".repeat(300).parse().unwrap());
    problem(platform.client.execute(long).await.unwrap(), 400).await;
    let malformed =
        platform.call(merchant, Method::POST, WITHDRAWALS).header("content-type", "application/json");
    problem(malformed.body("{\"amount\":").send().await.unwrap(), 400).await;
    assert_eq!(platform.number(COUNT).await, 0);
}

#[tokio::test]
async fn a_merchant_without_an_account_is_told_to_add_one() {
    let platform = Platform::start().await;
    let refused = problem(platform.post(Id::new(), WITHDRAWALS, &withdrawal(10)).await, 422).await;
    assert!(refused["detail"].as_str().unwrap().contains("POST /api/v1/bank-accounts"));
}

#[tokio::test]
async fn another_merchant_neither_sees_nor_stops_a_withdrawal() {
    let platform = Platform::start().await;
    let (one, other) = (platform.merchant().await, platform.merchant().await);
    let mine = platform.withdrawal(one, 10).await;
    let path = format!("{WITHDRAWALS}/{}", mine["id"].as_str().unwrap());
    let look = platform.call(other, Method::GET, &path).send().await.unwrap();
    problem(look, 404).await;
    problem(platform.post(other, &format!("{path}/cancel"), &json!({})).await, 404).await;
    assert_eq!(platform.get(other, WITHDRAWALS).await["withdrawals"], json!([]));
    let theirs = platform.get(other, "/api/v1/bank-accounts").await["bank_accounts"][0]["id"].clone();
    let mut body = withdrawal(10);
    body["bank_account_id"] = theirs;
    problem(platform.post(one, WITHDRAWALS, &body).await, 422).await;
    assert_eq!(platform.get(one, &path).await, mine);
}

#[tokio::test]
async fn a_withdrawal_is_cancelled_or_rejected_until_its_money_is_on_its_way() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let cancelled = platform.withdrawal(merchant, 10).await;
    let cancel = |withdrawal: &Value| format!("{WITHDRAWALS}/{}/cancel", withdrawal["id"].as_str().unwrap());
    for _ in 0..2 {
        let reply = platform.post(merchant, &cancel(&cancelled), &json!({})).await;
        assert_eq!(reply.json::<Value>().await.unwrap()["status"], "cancelled");
    }
    let no = json!({"reason": "unknown account"});
    problem(platform.decide(&cancelled, "reject", &no).await, 409).await;

    let rejected = platform.withdrawal(merchant, 10).await;
    assert_eq!(platform.approve(&rejected, "bob").await.status(), 200);
    let reply: Value = platform.decide(&rejected, "reject", &no).await.json().await.unwrap();
    assert_eq!((&reply["status"], &reply["reason"]), (&json!("rejected"), &json!("unknown account")));
    assert_eq!(platform.number("SELECT COUNT(*) FROM withdrawals WHERE rejected_by = 'ada'").await, 1);
    problem(platform.post(merchant, &cancel(&rejected), &json!({})).await, 409).await;

    let started = platform.withdrawal(merchant, 10).await;
    assert_eq!(platform.approve(&started, "bob").await.status(), 200);
    sqlx::query("UPDATE withdrawals SET status = 'processing' WHERE status = 'approved'")
        .execute(&platform.pool)
        .await
        .unwrap();
    let late = problem(platform.post(merchant, &cancel(&started), &json!({})).await, 409).await;
    assert_eq!(late["state"], "processing");
    problem(platform.decide(&started, "reject", &no).await, 409).await;
}

#[tokio::test]
async fn withdrawals_are_listed_page_by_page() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let mut expected = Vec::new();
    for dollars in 1..=3 {
        expected.push(platform.withdrawal(merchant, dollars).await);
    }
    let first = platform.get(merchant, &format!("{WITHDRAWALS}?limit=2")).await;
    let after = first["next"].as_str().unwrap();
    let rest = platform.get(merchant, &format!("{WITHDRAWALS}?limit=2&after={after}")).await;
    let all = [&first, &rest].map(|page| page["withdrawals"].as_array().unwrap().clone()).concat();
    assert_eq!(all, expected);
    let refused =
        platform.call(merchant, Method::GET, &format!("{WITHDRAWALS}?limit=0")).send().await.unwrap();
    problem(refused, 422).await;
}

#[tokio::test]
async fn a_named_account_is_used_instead_of_the_default() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let second = platform.post(merchant, "/api/v1/bank-accounts", &account("acct_slow")).await;
    let second: Value = second.json().await.unwrap();
    let mut body = withdrawal(10);
    body["bank_account_id"] = second["id"].clone();
    let created: Value = platform.post(merchant, WITHDRAWALS, &body).await.json().await.unwrap();
    assert_eq!(created["bank_account_id"], second["id"]);
}

#[tokio::test]
async fn a_test_key_neither_sees_nor_stops_nor_uses_what_is_of_production() {
    let platform = Platform::start().await;
    let merchant = platform.merchant().await;
    let live = platform.withdrawal(merchant, 10).await;
    assert_eq!(live["mode"], "production");
    let send = async |method: Method, path: &str, body: &Value| {
        let mut request = platform.call(merchant, method, path).json(body).build().unwrap();
        request.headers_mut().insert("x-merchant-mode", "test".parse().unwrap());
        platform.client.execute(request).await.unwrap()
    };
    let path = format!("{WITHDRAWALS}/{}", live["id"].as_str().unwrap());
    problem(send(Method::GET, &path, &json!({})).await, 404).await;
    problem(send(Method::POST, &format!("{path}/cancel"), &json!({})).await, 404).await;
    for (path, list) in [(WITHDRAWALS, "withdrawals"), ("/api/v1/bank-accounts", "bank_accounts")] {
        let listed: Value = send(Method::GET, path, &json!({})).await.json().await.unwrap();
        assert_eq!(listed[list], json!([]));
    }
    let mut body = withdrawal(10);
    assert_eq!(problem(send(Method::POST, WITHDRAWALS, &body).await, 422).await["field"], "bank_account_id");
    body["bank_account_id"] = live["bank_account_id"].clone();
    assert_eq!(problem(send(Method::POST, WITHDRAWALS, &body).await, 422).await["field"], "bank_account_id");
    let choose = format!("/api/v1/bank-accounts/{}/set-default", live["bank_account_id"].as_str().unwrap());
    problem(send(Method::POST, &choose, &json!({})).await, 404).await;

    let added: Value =
        send(Method::POST, "/api/v1/bank-accounts", &account("acct_ok")).await.json().await.unwrap();
    assert_eq!(added["is_default"], true, "the other world has a default of its own");
    let test: Value = send(Method::POST, WITHDRAWALS, &withdrawal(10)).await.json().await.unwrap();
    assert_eq!(test["mode"], "test");
    assert_eq!(platform.get(merchant, WITHDRAWALS).await["withdrawals"], json!([live]));
}

#[tokio::test]
async fn the_money_of_a_test_key_is_sent_in_the_test_mode_of_the_bank() {
    let platform = Platform::start().await;
    let merchant = Id::new();
    let send = async |path: &str, body: &Value| {
        let mut request = platform.call(merchant, Method::POST, path).json(body).build().unwrap();
        request.headers_mut().insert("x-merchant-mode", "test".parse().unwrap());
        platform.client.execute(request).await.unwrap().json::<Value>().await.unwrap()
    };
    let mut credit = entry(merchant, "PAY-1", 10_000);
    credit["mode"] = json!("test");
    assert_eq!(platform.book("credits", &credit).await.status(), 201);
    send("/api/v1/bank-accounts", &account("acct_ok")).await;
    let withdrawal = send(WITHDRAWALS, &withdrawal(10)).await;
    assert_eq!(platform.approve(&withdrawal, "ada").await.status(), 200);
    assert_eq!(platform.decide(&withdrawal, "execute", &json!({})).await.status(), 202);
    assert_eq!(rest(&platform, &withdrawal).await, "completed");
    assert_eq!(platform.balance(merchant, "test").await, Some((8_900, 0)));
    assert_eq!(platform.balance(merchant, "production").await, None);
    let mode = "SELECT mode FROM channel_transfer_orders";
    let mode: String = sqlx::query_scalar(mode).fetch_one(&platform.ledger).await.unwrap();
    assert_eq!(mode, "test");
}
