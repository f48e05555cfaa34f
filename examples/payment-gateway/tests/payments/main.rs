//! The gateway over real HTTP with real neighbours: what a merchant sees, and what is in the databases.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cancels;
mod clients;
mod document;
mod expiry;
mod notifications;
mod outages;
#[path = "../platform/mod.rs"]
mod platform;
mod refunds;
mod refusals;
mod runbook;
mod tenants;
mod webhooks;

use platform::{Answer, Merchant, Place, Platform, payment, read, serve};
use serde_json::{Value, json};
use service_shell::{Operators, ServiceToken, Settings};

/// Short steps, so that a silent channel is asked soon, and one that is away is not waited for long.
const QUICK: [(&str, &str); 3] = [("STEP_TIMEOUT_MS", "400"), ("STEP_RETRY_MS", "2"), ("STEP_PATIENCE", "2")];

async fn gateway(platform: &Platform, extra: &[(&'static str, &str)]) -> String {
    let settings = Settings::from_vars("payment-gateway", 0, platform.environment(extra)).unwrap();
    let (router, _drain) = payment_gateway::start(settings).await.unwrap();
    serve(router).await
}

async fn setup(extra: &[(&'static str, &str)]) -> (Platform, Merchant) {
    let platform = Platform::start().await;
    let base = gateway(&platform, extra).await;
    let merchant = platform.merchant(&base).await;
    (platform, merchant)
}

async fn pay(merchant: &Merchant, key: &str, body: &Value) -> Answer {
    merchant.try_pay(key, body).await.unwrap()
}

/// Pays, and looks until the payment has its end: a neighbour that is away is waited for longer than a request waits.
async fn pay_and_look(merchant: &Merchant, key: &str, body: &Value) -> Value {
    let mut shown = pay(merchant, key, body).await.json();
    let path = format!("/api/v1/payments/{}", shown["payment_no"].as_str().unwrap());
    while shown["status"] == "processing" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        shown = merchant.get(&path).await.unwrap().json();
    }
    shown
}

async fn count(place: &Place, sql: &'static str) -> i64 {
    let pool = place.open().await;
    let found = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    pool.close().await;
    found
}

async fn word(place: &Place, sql: &'static str) -> String {
    let pool = place.open().await;
    let found = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
    pool.close().await;
    found
}

async fn charges(platform: &Platform) -> i64 {
    count(&platform.channel, "SELECT COUNT(*) FROM channel_charges WHERE status = 'charged'").await
}

fn kind(answer: &Answer) -> String {
    let uri = answer.json()["type"].as_str().unwrap().to_owned();
    uri.rsplit([':', '#']).next().unwrap().to_owned()
}

// proves: I-2
#[tokio::test]
async fn a_payment_is_charged_once_and_its_repetition_gets_the_same_bytes() {
    let (platform, merchant) = setup(&[]).await;
    let body = payment("A-1", "card_ok");
    let first = pay(&merchant, "key-1", &body).await;
    assert_eq!((first.status, first.replayed), (201, false), "{first:?}");
    assert_eq!(first.json()["status"], "success");
    let again = pay(&merchant, "key-1", &body).await;
    assert_eq!((again.status, again.replayed, &again.body), (201, true, &first.body));
    assert_eq!(charges(&platform).await, 1);
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "paid");
    assert_eq!(word(&platform.gateway, "SELECT status FROM saga_instances").await, "completed");
    assert_eq!(
        word(&platform.gateway, "SELECT step_name FROM saga_steps ORDER BY step_order DESC LIMIT 1").await,
        "PayOrder"
    );
    let path = format!("/api/v1/payments/{}", first.json()["payment_no"].as_str().unwrap());
    assert_eq!(merchant.get(&path).await.unwrap().json(), first.json());
}

// proves: I-3
#[tokio::test]
async fn the_same_key_with_another_body_is_refused_and_charges_nothing_more() {
    let (platform, merchant) = setup(&[]).await;
    assert_eq!(pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.status, 201);
    let other = pay(&merchant, "key-1", &payment("A-2", "card_ok")).await;
    assert_eq!((other.status, kind(&other)), (422, "mismatch".to_owned()));
    assert_eq!(charges(&platform).await, 1);
}

/// Forgets what the keys stood for, as the end of their retention does.
async fn forget_keys(platform: &Platform) {
    let pool = platform.gateway.open().await;
    sqlx::query("DELETE FROM idempotency_records").execute(&pool).await.unwrap();
    pool.close().await;
}

// proves: I-3
#[tokio::test]
async fn a_key_that_comes_back_after_its_retention_is_the_same_payment_or_refused() {
    let (platform, merchant) = setup(&[]).await;
    let first = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    forget_keys(&platform).await;
    let same = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    assert_eq!((same.status, &same.body), (201, &first.body));
    forget_keys(&platform).await;
    let told = ("notify_url", json!("http://127.0.0.1:1/"));
    let items = ("items", json!([{"name": "tea", "quantity": 1, "unit_price": 1250}]));
    for (name, value) in [("order_no", json!("A-2")), told, items] {
        let mut body = payment("A-1", "card_ok");
        body[name] = value;
        let other = pay(&merchant, "key-1", &body).await;
        assert_eq!((other.status, kind(&other)), (422, "idempotency-key-reused".to_owned()), "{name}");
        forget_keys(&platform).await;
    }

    let payment_no = first.json()["payment_no"].clone();
    let refund = async |amount: i64| {
        let body = json!({"payment_no": payment_no, "amount": amount, "currency": "USD"});
        merchant.post("/api/v1/refunds", "back-1", &body).await.unwrap()
    };
    let first = refund(100).await;
    forget_keys(&platform).await;
    assert_eq!(refund(100).await.body, first.body);
    forget_keys(&platform).await;
    assert_eq!(kind(&refund(200).await), "idempotency-key-reused");
    assert_eq!(charges(&platform).await, 1);
    assert_eq!(count(&platform.gateway, "SELECT refunded_amount FROM payments").await, 100);
}

// proves: I-1
#[tokio::test]
async fn while_the_first_request_runs_its_repetition_is_told_to_wait() {
    let (platform, merchant) = setup(&[]).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    let first = async { pay(&merchant, "key-1", &body).await };
    let second = async {
        platform.gate.arrived(1).await;
        let second = pay(&merchant, "key-1", &body).await;
        platform.gate.reopen();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((second.status, kind(&second)), (409, "in-flight".to_owned()));
    assert_eq!((first.status, &first.json()["status"]), (201, &json!("success")));
    assert_eq!(charges(&platform).await, 1);
}

#[tokio::test]
async fn a_payment_that_takes_longer_than_the_request_is_shown_to_a_retry_as_it_is_then() {
    let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "50")]).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    let first = pay(&merchant, "key-1", &body).await;
    assert_eq!((first.status, &first.json()["status"]), (202, &json!("processing")));
    let again = pay(&merchant, "key-1", &body).await;
    assert_eq!((again.status, &again.body), (202, &first.body), "it is rendered as it is now");
    platform.gate.reopen();
    let path = format!("/api/v1/payments/{}", first.json()["payment_no"].as_str().unwrap());
    while merchant.get(&path).await.unwrap().json()["status"] != "success" {
        tokio::task::yield_now().await;
    }
    let ended = pay(&merchant, "key-1", &body).await;
    assert_eq!((ended.status, ended.replayed, &ended.json()["status"]), (201, true, &json!("success")));
    assert_eq!(pay(&merchant, "key-1", &body).await.body, ended.body, "the last answer is recorded");
    assert_eq!(pay(&merchant, "key-1", &payment("A-1", "card_declined")).await.status, 422);
    assert_eq!(charges(&platform).await, 1);
}

// proves: S-4
#[tokio::test]
async fn a_declined_card_cancels_the_order_and_fails_the_payment() {
    let (platform, merchant) = setup(&[]).await;
    let body = payment("A-1", "card_declined");
    let first = pay(&merchant, "key-1", &body).await;
    let shown = first.json();
    assert_eq!((first.status, &shown["status"]), (201, &json!("failed")), "{first:?}");
    assert_eq!(shown["failure_reason"], "card_declined");
    let again = pay(&merchant, "key-1", &body).await;
    assert_eq!((again.replayed, &again.body), (true, &first.body));
    assert_eq!(charges(&platform).await, 0);
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "cancelled");
    assert_eq!(word(&platform.gateway, "SELECT status FROM saga_instances").await, "compensated");
}

#[tokio::test]
async fn a_channel_that_hangs_is_asked_and_the_one_charge_counts() {
    let (platform, merchant) = setup(&[("CHANNEL_TIMEOUT_MS", "400"), QUICK[1]]).await;
    let ended = pay_and_look(&merchant, "key-1", &payment("A-1", "card_hangs")).await;
    assert_eq!(ended["status"], "success", "{ended}");
    assert_eq!(charges(&platform).await, 1);
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "paid");
}

// proves: S-5
#[tokio::test]
async fn a_charge_that_never_arrives_is_made_impossible_before_the_payment_fails() {
    let (platform, merchant) = setup(&[QUICK[0], QUICK[1], QUICK[2], ("REQUEST_WAIT_MS", "1000")]).await;
    let ended = pay_and_look(&merchant, "key-1", &payment("A-1", "card_never_arrives")).await;
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(charges(&platform).await, 0);
    assert_eq!(word(&platform.channel, "SELECT status FROM channel_payments").await, "cancelled");
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "cancelled");
}

#[tokio::test]
async fn a_slow_charge_ends_as_the_ledger_says() {
    let (platform, merchant) = setup(&[("CHANNEL_TIMEOUT_MS", "100"), ("STEP_RETRY_MS", "60")]).await;
    let ended = pay_and_look(&merchant, "key-1", &payment("A-1", "card_slow")).await;
    let live = charges(&platform).await;
    match ended["status"].as_str() {
        Some("success") => assert_eq!(live, 1),
        Some("failed") => assert_eq!(live, 0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_order_number_under_many_keys_at_once_is_one_payment() {
    let (platform, merchant) = setup(&[]).await;
    let body = payment("A-1", "card_ok");
    let calls = (0..8).map(|n| {
        let (merchant, body) = (merchant.clone(), body.clone());
        tokio::spawn(async move { pay(&merchant, &format!("key-{n}"), &body).await.status })
    });
    let mut statuses = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        statuses.push(call.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(count(&platform.gateway, "SELECT COUNT(*) FROM payments").await, 1);
    assert_eq!(charges(&platform).await, 1);
}

#[tokio::test]
async fn payments_are_listed_by_pages_and_by_what_they_are() {
    let (_platform, merchant) = setup(&[]).await;
    for (n, method) in ["card_ok", "card_declined", "card_ok"].into_iter().enumerate() {
        pay(&merchant, &format!("key-{n}"), &payment(&format!("A-{n}"), method)).await;
    }
    let list = async |query: &str| merchant.get(&format!("/api/v1/payments?{query}")).await.unwrap();
    let numbers = |page: &Value| -> Vec<String> {
        let of = |payment: &Value| payment["order_no"].as_str().unwrap().to_owned();
        page["payments"].as_array().unwrap().iter().map(of).collect()
    };
    let first = list("limit=2").await.json();
    assert_eq!(numbers(&first), ["A-2", "A-1"]);
    let next = first["next"].as_str().unwrap();
    assert_eq!(numbers(&list(&format!("before={next}")).await.json()), ["A-0"]);
    assert_eq!(numbers(&list("status=failed").await.json()), ["A-1"]);
    assert_eq!(numbers(&list("status=success&currency=USD&limit=1").await.json()), ["A-2"]);
    assert!(numbers(&list("currency=EUR").await.json()).is_empty());
    for wrong in ["limit=0", "status=lost", "before=x", "nonsuch=1"] {
        let status = list(wrong).await.status;
        assert!(matches!(status, 400 | 422), "{wrong}: {status}");
    }
}

// proves: I-8
#[tokio::test]
async fn merchants_never_meet() {
    let (platform, ours) = setup(&[]).await;
    let theirs = platform.merchant(&ours.base).await;
    let body = payment("A-1", "card_ok");
    let mine = pay(&ours, "key-1", &body).await;
    let other = pay(&theirs, "key-1", &body).await;
    assert_eq!((other.status, other.replayed), (201, false), "the same key and number, another merchant");
    assert_ne!(mine.json()["payment_no"], other.json()["payment_no"]);
    let path = format!("/api/v1/payments/{}", mine.json()["payment_no"].as_str().unwrap());
    assert_eq!(theirs.get(&path).await.unwrap().status, 404);
    let listed = theirs.get("/api/v1/payments?order_no=A-1").await.unwrap().json();
    assert_eq!(listed["payments"].as_array().unwrap().len(), 1);
    assert_eq!(listed["payments"][0]["payment_no"], other.json()["payment_no"]);
    assert_eq!(charges(&platform).await, 2);
}

// proves: I-8
#[tokio::test]
async fn test_and_production_keys_of_one_merchant_are_two_worlds() {
    let (platform, _) = setup(&[]).await;
    let base = gateway(&platform, &[]).await;
    let [test, live] = platform.merchant_in_both_modes(&base).await;
    let tested = pay(&test, "key-1", &payment("A-1", "card_ok")).await;
    let charged = pay(&live, "key-1", &payment("A-2", "card_ok")).await;
    assert_eq!((charged.status, charged.replayed), (201, false), "{charged:?}");
    assert_eq!((&tested.json()["mode"], &charged.json()["mode"]), (&json!("test"), &json!("production")));
    let payment_no = tested.json()["payment_no"].as_str().unwrap().to_owned();
    assert_eq!(live.get(&format!("/api/v1/payments/{payment_no}")).await.unwrap().status, 404);
    let refund = json!({"payment_no": payment_no, "amount": 1, "currency": "USD"});
    assert_eq!(live.post("/api/v1/refunds", "back-1", &refund).await.unwrap().status, 404);
    let refunded = test.post("/api/v1/refunds", "back-1", &refund).await.unwrap();
    let refund_no = refunded.json()["refund_no"].as_str().unwrap().to_owned();
    assert_eq!(live.get(&format!("/api/v1/refunds/{refund_no}")).await.unwrap().status, 404);
    assert_eq!(live.get("/api/v1/refunds").await.unwrap().json()["refunds"], json!([]));
    let listed = live.get("/api/v1/payments").await.unwrap().json();
    assert_eq!(
        (listed["payments"].as_array().unwrap().len(), &listed["payments"][0]["order_no"]),
        (1, &json!("A-2"))
    );
    // The number of a test order takes none from production, anywhere.
    let taken = pay(&live, "key-2", &payment("A-1", "card_ok")).await;
    assert_eq!((taken.status, &taken.json()["status"]), (201, &json!("success")), "{taken:?}");
    let back = json!({"payment_no": taken.json()["payment_no"], "amount": 1250, "currency": "USD"});
    assert_eq!(live.post("/api/v1/refunds", "back-2", &back).await.unwrap().json()["status"], "success");
    let of_test = "SELECT status FROM orders WHERE order_no = 'A-1' AND mode = 'test'";
    assert_eq!(word(&platform.orders, of_test).await, "paid");
    let of_live = "SELECT status FROM orders WHERE order_no = 'A-1' AND mode = 'production'";
    assert_eq!(word(&platform.orders, of_live).await, "refunded");
    let modes = "SELECT COUNT(*) FROM channel_payments WHERE mode = 'production'";
    assert_eq!(count(&platform.channel, modes).await, 2);
}

#[tokio::test]
async fn without_the_order_service_nothing_is_charged_and_nothing_is_guessed() {
    let nowhere = format!("http://127.0.0.1:{}", testkit::free_port());
    let mut extra = QUICK.to_vec();
    extra.extend([("ORDER_SERVICE_URL", nowhere.as_str()), ("REQUEST_WAIT_MS", "1000")]);
    let (platform, merchant) = setup(&extra).await;
    let answer = pay_and_look(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    let saga = word(&platform.gateway, "SELECT status FROM saga_instances").await;
    // Nobody was connected to, so it is proven that no order was created.
    assert_eq!((answer["status"].as_str().unwrap(), saga.as_str()), ("failed", "compensated"));
    assert_eq!(charges(&platform).await, 0);
}

#[tokio::test]
async fn a_wrong_service_token_is_the_platforms_fault_and_not_the_merchants() {
    let platform = Platform::start().await;
    let base = gateway(&platform, &[("SERVICE_TOKEN", "0123456789abcdef0123456789abcdef")]).await;
    let merchant = platform.merchant(&base).await;
    let answer = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    assert_eq!((answer.status, kind(&answer)), (503, "unavailable".to_owned()), "{answer:?}");
}

// proves: I-9
#[tokio::test]
async fn without_the_merchant_service_nobody_is_let_in() {
    let nowhere = format!("http://127.0.0.1:{}", testkit::free_port());
    let platform = Platform::start().await;
    let base = gateway(&platform, &[("MERCHANT_SERVICE_URL", nowhere.as_str())]).await;
    let merchant = platform.merchant(&base).await;
    let answer = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(count(&platform.gateway, "SELECT COUNT(*) FROM payments").await, 0);
}

#[tokio::test]
async fn only_an_operator_turns_a_saga_back_and_only_while_it_can() {
    let (_platform, merchant) = setup(&[]).await;
    let answer = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    let url = |number: &str| format!("{}/api/v1/saga/payments/{number}/compensate", merchant.base);
    let payment_no = answer["payment_no"].as_str().unwrap();
    let token = Operators::token_for_this_machine("ann");
    let order = |number: &str| merchant.http.post(url(number)).bearer_auth(&token);
    assert_eq!(read(merchant.http.post(url(payment_no))).await.unwrap().status, 401);
    let service = ServiceToken::for_this_machine("SERVICE_TOKEN");
    let as_service = merchant.http.post(url(payment_no)).bearer_auth(service.text());
    assert_eq!(read(as_service).await.unwrap().status, 401, "a service is no person");
    assert_eq!(read(order("PAY-NONE")).await.unwrap().status, 404);
    assert_eq!(read(order(payment_no)).await.unwrap().status, 409, "it is completed");
}

/// Replaces the input of the only saga by one that an older version stored.
async fn age_input(platform: &Platform) {
    let pool = platform.gateway.open().await;
    let sql = if service_shell::POSTGRES {
        "UPDATE saga_heads SET input = (input::jsonb - 'mode')::TEXT"
    } else {
        "UPDATE saga_heads SET input = json_remove(input, '$.mode')"
    };
    sqlx::query(sql).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test]
async fn a_payment_of_an_older_version_is_waited_for_by_its_repetition() {
    let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "50")]).await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    assert_eq!(pay(&merchant, "key-1", &body).await.status, 202);
    age_input(&platform).await;
    forget_keys(&platform).await;
    let again = pay(&merchant, "key-1", &body).await;
    assert_eq!((again.status, &again.json()["status"]), (202, &json!("processing")), "{again:?}");
    platform.gate.reopen();
}
