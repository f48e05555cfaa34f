//! Money of a payment is given back once, never more than was paid, and the order learns of it when all is back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::platform::{Answer, Merchant, Platform, payment};
use crate::{count, kind, pay, setup, word};

const PATH: &str = "/api/v1/refunds";

/// Short steps, and a request that does not wait for a neighbour that is away.
const SHORT: [(&str, &str); 5] = [
    ("STEP_TIMEOUT_MS", "400"),
    ("STEP_RETRY_MS", "2"),
    ("PROVIDER_PAUSE_MS", "5"),
    ("SAGA_POLL_MS", "50"),
    ("REQUEST_WAIT_MS", "100"),
];

/// A merchant with a payment of 1250 that is a success.
async fn paid(extra: &[(&'static str, &str)]) -> (Platform, Merchant, String) {
    let (platform, merchant) = setup(extra).await;
    let payment_no = pay_now(&merchant, "A-1").await;
    (platform, merchant, payment_no)
}

async fn pay_now(merchant: &Merchant, order_no: &str) -> String {
    let body = payment(order_no, "card_ok");
    let shown = crate::pay_and_look(merchant, &format!("pay-{order_no}"), &body).await;
    assert_eq!(shown["status"], "success", "{shown}");
    shown["payment_no"].as_str().unwrap().to_owned()
}

async fn refund(merchant: &Merchant, key: &str, payment_no: &str, amount: i64) -> Answer {
    let body = json!({"payment_no": payment_no, "amount": amount, "currency": "USD"});
    merchant.post(PATH, key, &body).await.unwrap()
}

async fn given_back(platform: &Platform) -> i64 {
    let sql =
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM channel_refunds WHERE status = 'refunded'";
    count(&platform.channel, sql).await
}

async fn order(platform: &Platform) -> String {
    word(&platform.orders, "SELECT status FROM orders").await
}

/// Looks until a refund has its end.
async fn ended(merchant: &Merchant, answer: &Answer) -> Value {
    let path = format!("{PATH}/{}", answer.json()["refund_no"].as_str().unwrap());
    loop {
        let shown = merchant.get(&path).await.unwrap().json();
        if shown["status"] != "processing" {
            return shown;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn assert_no_refund(platform: &Platform) {
    assert_eq!(count(&platform.gateway, "SELECT COUNT(*) FROM refunds").await, 0);
    let sagas = "SELECT COUNT(*) FROM saga_instances WHERE business_type = 'refund'";
    assert_eq!(count(&platform.gateway, sagas).await, 0);
    assert_eq!(count(&platform.channel, "SELECT COUNT(*) FROM channel_refunds").await, 0);
}

// proves: I-2
#[tokio::test]
async fn a_payment_is_given_back_once_and_the_order_is_refunded() {
    let (platform, merchant, payment_no) = paid(&[]).await;
    let first = refund(&merchant, "back-1", &payment_no, 1250).await;
    assert_eq!(
        (first.status, first.replayed, &first.json()["status"]),
        (201, false, &json!("success")),
        "{first:?}"
    );
    let again = refund(&merchant, "back-1", &payment_no, 1250).await;
    assert_eq!((again.status, again.replayed, &again.body), (201, true, &first.body));
    assert_eq!((given_back(&platform).await, order(&platform).await.as_str()), (1250, "refunded"));
    let shown = merchant.get(&format!("/api/v1/payments/{payment_no}")).await.unwrap().json();
    assert_eq!((&shown["status"], &shown["refunded_amount"]), (&json!("success"), &json!(1250)));
    assert_eq!(ended(&merchant, &first).await, first.json());
    let other = refund(&merchant, "back-1", &payment_no, 1).await;
    assert_eq!((other.status, kind(&other)), (422, "mismatch".to_owned()));
    let elsewhere = json!({"payment_no": payment_no, "amount": 1, "currency": "USD"});
    let elsewhere = merchant.post(PATH, "pay-A-1", &elsewhere).await.unwrap();
    assert_eq!(elsewhere.status, 422, "the key of a payment is none of a refund");
}

#[tokio::test]
async fn parts_are_given_back_until_nothing_is_left_and_only_then_is_the_order_refunded() {
    let (platform, merchant, payment_no) = paid(&[]).await;
    assert_eq!(refund(&merchant, "back-1", &payment_no, 500).await.status, 201);
    assert_eq!((given_back(&platform).await, order(&platform).await.as_str()), (500, "paid"));
    let above = refund(&merchant, "back-2", &payment_no, 751).await;
    assert_eq!((above.status, kind(&above)), (409, "refund-exceeds-payment".to_owned()));
    assert_eq!(above.json()["refundable"], 750);
    // What was refused has not used up its key.
    assert_eq!(refund(&merchant, "back-2", &payment_no, 750).await.status, 201);
    assert_eq!((given_back(&platform).await, order(&platform).await.as_str()), (1250, "refunded"));
    let nothing = refund(&merchant, "back-3", &payment_no, 1).await;
    assert_eq!((nothing.status, &nothing.json()["refundable"]), (409, &json!(0)));

    let listed = merchant.get(&format!("{PATH}?payment_no={payment_no}&limit=1")).await.unwrap().json();
    assert_eq!(listed["refunds"][0]["amount"], 750, "newest first");
    let next = listed["next"].as_str().unwrap();
    let rest = merchant.get(&format!("{PATH}?before={next}&status=success")).await.unwrap().json();
    assert_eq!((rest["refunds"].as_array().unwrap().len(), &rest["refunds"][0]["amount"]), (1, &json!(500)));
    let none = merchant.get(&format!("{PATH}?status=failed")).await.unwrap().json();
    assert_eq!(none["refunds"], json!([]));
}

#[tokio::test]
async fn of_three_refunds_of_400_at_once_on_1000_exactly_two_are_given_back() {
    let (platform, merchant) = setup(&[]).await;
    let body = json!({"order_no": "A-1", "amount": 1000, "currency": "USD", "payment_method": "card_ok"});
    let payment_no = pay(&merchant, "pay-1", &body).await.json()["payment_no"].as_str().unwrap().to_owned();
    let refund = async |key| refund(&merchant, key, &payment_no, 400).await.status;
    let (one, two, three) = tokio::join!(refund("back-1"), refund("back-2"), refund("back-3"));
    let mut statuses = [one, two, three];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 409]);
    assert_eq!((given_back(&platform).await, order(&platform).await.as_str()), (800, "paid"));
    assert_eq!(count(&platform.gateway, "SELECT refunded_amount FROM payments").await, 800);
}

#[tokio::test]
async fn what_cannot_be_given_back_is_refused_and_nothing_is_written() {
    let (platform, merchant, payment_no) = paid(&[]).await;
    let send = async |body: Value| merchant.post(PATH, "back-1", &body).await.unwrap();
    let body = |amount: i64, currency: &str| json!({"payment_no": payment_no, "amount": amount, "currency": currency});
    let above = send(body(1251, "USD")).await;
    assert_eq!((above.status, kind(&above)), (409, "refund-exceeds-payment".to_owned()));
    let euros = send(body(1, "EUR")).await;
    assert_eq!((euros.status, &euros.json()["field"]), (422, &json!("currency")));
    for amount in [0, -1] {
        assert_eq!(send(body(amount, "USD")).await.status, 422);
    }
    let unknown = send(json!({"payment_no": "PAY-NONE", "amount": 1, "currency": "USD"})).await;
    assert_eq!((unknown.status, kind(&unknown)), (404, "not-found".to_owned()));
    let stranger = platform.merchant(&merchant.base).await;
    assert_eq!(refund(&stranger, "back-1", &payment_no, 1).await.status, 404, "another merchant's");
    assert_no_refund(&platform).await;
    assert_eq!(
        refund(&merchant, "back-1", &payment_no, 1).await.status,
        201,
        "a refusal has used up the key"
    );
    let own = format!("{PATH}/{}", word(&platform.gateway, "SELECT refund_no FROM refunds").await);
    assert_eq!(stranger.get(&own).await.unwrap().status, 404);
    assert_eq!(stranger.get(PATH).await.unwrap().json()["refunds"], json!([]));
}

#[tokio::test]
async fn an_open_payment_is_given_back_by_the_same_request_once_it_is_a_success_and_a_failed_one_never() {
    let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "50")]).await;
    platform.gate.close();
    let open = pay(&merchant, "pay-1", &payment("A-1", "card_ok")).await.json();
    let payment_no = open["payment_no"].as_str().unwrap();
    let refused = refund(&merchant, "back-1", payment_no, 1250).await;
    assert_eq!((refused.status, kind(&refused)), (409, "payment-not-refundable".to_owned()));
    assert_eq!(refused.json()["state"], "processing");
    assert_no_refund(&platform).await;
    platform.gate.reopen();
    crate::pay_and_look(&merchant, "pay-1", &payment("A-1", "card_ok")).await;
    let first = refund(&merchant, "back-1", payment_no, 1250).await;
    assert_eq!(ended(&merchant, &first).await["status"], "success", "{first:?}");

    let failed = crate::pay_and_look(&merchant, "pay-2", &payment("A-2", "card_declined")).await;
    let refused = refund(&merchant, "back-2", failed["payment_no"].as_str().unwrap(), 1).await;
    assert_eq!((refused.status, &refused.json()["state"]), (409, &json!("failed")));
}

#[tokio::test]
async fn what_the_channel_refuses_has_failed_and_may_be_asked_for_again() {
    let (platform, merchant, payment_no) = paid(&[]).await;
    let channel = platform.channel.open().await;
    sqlx::query("UPDATE channel_charges SET amount = 1").execute(&channel).await.unwrap();
    let failed = refund(&merchant, "back-1", &payment_no, 1250).await;
    let shown = failed.json();
    assert_eq!(
        (failed.status, &shown["status"], &shown["failure_reason"]),
        (201, &json!("failed"), &json!("more_than_charged"))
    );
    assert_eq!(order(&platform).await, "paid");
    sqlx::query("UPDATE channel_charges SET amount = 1250").execute(&channel).await.unwrap();
    channel.close().await;
    assert_eq!(refund(&merchant, "back-2", &payment_no, 1250).await.json()["status"], "success");
    assert_eq!(given_back(&platform).await, 1250);
}

// proves: S-14
#[tokio::test]
async fn a_refund_goes_forward_while_the_channel_and_then_the_order_service_are_away() {
    let (platform, merchant, payment_no) = paid(&SHORT).await;
    platform.to_channel.cut();
    platform.to_orders.cut();
    let first = refund(&merchant, "back-1", &payment_no, 1250).await;
    assert_eq!((first.status, &first.json()["status"]), (202, &json!("processing")));
    assert_eq!(refund(&merchant, "back-2", &payment_no, 1).await.status, 409, "it counts from its insert");
    let pool = platform.gateway.open().await;
    sqlx::query("UPDATE refunds SET failure_reason = 'noted by a step'").execute(&pool).await.unwrap();
    pool.close().await;
    let own = format!("{PATH}/{}", first.json()["refund_no"].as_str().unwrap());
    assert_eq!(merchant.get(&own).await.unwrap().json()["failure_reason"], Value::Null, "it is open");
    platform.to_channel.restore();
    while given_back(&platform).await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    let waits = "SELECT COUNT(*) FROM saga_steps WHERE step_name = 'RefundOrder' AND error_message LIKE 'waits for order service: %'";
    while count(&platform.gateway, waits).await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(order(&platform).await, "paid");
    platform.to_orders.restore();
    assert_eq!(ended(&merchant, &first).await["status"], "success");
    let again = refund(&merchant, "back-1", &payment_no, 1250).await;
    assert_eq!((again.status, again.replayed, &again.json()["status"]), (201, true, &json!("success")));
    assert_eq!(refund(&merchant, "back-1", &payment_no, 1250).await.body, again.body);
    assert_eq!((given_back(&platform).await, order(&platform).await.as_str()), (1250, "refunded"));
}
