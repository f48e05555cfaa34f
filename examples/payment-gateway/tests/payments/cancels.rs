//! A merchant cancels a payment: before the charge it is undone, after it the merchant is told to give it back.

use serde_json::{Value, json};

use crate::platform::{Answer, Merchant, Platform, payment};
use crate::{charges, count, kind, pay, setup, word};

/// Requests do not wait, and the wish of a merchant is seen soon.
const SHORT: [(&str, &str); 4] =
    [("STEP_RETRY_MS", "1"), ("PROVIDER_PAUSE_MS", "5"), ("SAGA_POLL_MS", "50"), ("REQUEST_WAIT_MS", "50")];

async fn cancel(merchant: &Merchant, payment_no: &str) -> Answer {
    let path = format!("/api/v1/payments/{payment_no}/cancel");
    merchant.post(&path, "not needed", &json!({})).await.unwrap()
}

/// Looks until the payment has its end.
async fn ended(merchant: &Merchant, payment_no: &str) -> Value {
    let path = format!("/api/v1/payments/{payment_no}");
    loop {
        let shown = merchant.get(&path).await.unwrap().json();
        if shown["status"] != "processing" {
            return shown;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn number(answer: &Answer) -> String {
    answer.json()["payment_no"].as_str().unwrap().to_owned()
}

async fn assert_cancelled(platform: &Platform, merchant: &Merchant, payment_no: &str) {
    let shown = ended(merchant, payment_no).await;
    assert_eq!(
        (&shown["status"], &shown["failure_reason"]),
        (&json!("cancelled"), &json!("cancelled_by_merchant"))
    );
    assert_eq!(charges(platform).await, 0);
    let again = cancel(merchant, payment_no).await;
    assert_eq!((again.status, again.json()), (200, shown), "a second cancel changes nothing");
    let refund = json!({"payment_no": payment_no, "amount": 1, "currency": "USD"});
    let refused = merchant.post("/api/v1/refunds", "back-1", &refund).await.unwrap();
    assert_eq!((refused.status, &refused.json()["state"]), (409, &json!("cancelled")));
}

#[tokio::test]
async fn a_cancel_before_the_charge_lets_nothing_be_charged() {
    let (platform, merchant) = setup(&SHORT).await;
    platform.to_orders.cut();
    let payment_no = number(&pay(&merchant, "key-1", &payment("A-1", "card_ok")).await);
    let asked = cancel(&merchant, &payment_no).await;
    assert!(matches!(asked.status, 200 | 202), "{asked:?}");
    platform.to_orders.restore();
    assert_cancelled(&platform, &merchant, &payment_no).await;
    assert_eq!(count(&platform.channel, "SELECT COUNT(*) FROM channel_charges").await, 0);
}

#[tokio::test]
async fn a_cancel_while_the_charge_is_on_its_way_voids_it() {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.close();
    let payment_no = number(&pay(&merchant, "key-1", &payment("A-1", "card_ok")).await);
    platform.gate.arrived(1).await;
    let asked = cancel(&merchant, &payment_no).await;
    assert_eq!((asked.status, &asked.json()["status"]), (202, &json!("processing")));
    platform.gate.reopen();
    assert_cancelled(&platform, &merchant, &payment_no).await;
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "cancelled");
}

// proves: S-5
#[tokio::test]
async fn a_cancel_while_the_undo_waits_for_a_person_does_not_say_that_the_money_is_taken() {
    let (platform, merchant) = setup(&[SHORT.as_slice(), &[("STEP_PATIENCE", "2")]].concat()).await;
    platform.gate.close();
    let payment_no = number(&pay(&merchant, "key-1", &payment("A-1", "card_declined")).await);
    platform.gate.arrived(1).await;
    platform.to_orders.cut();
    platform.gate.reopen();
    let stuck = "SELECT COUNT(*) FROM saga_instances WHERE status = 'stuck'";
    while count(&platform.gateway, stuck).await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let asked = cancel(&merchant, &payment_no).await;
    assert_eq!((asked.status, &asked.json()["status"]), (202, &json!("processing")), "{asked:?}");
    let reason = word(&platform.gateway, "SELECT failure_reason FROM payments").await;
    assert_eq!(reason, "card_declined", "the cancel changes nothing");
}

#[tokio::test]
async fn a_cancel_after_the_charge_is_refused_whether_or_not_the_order_is_paid() {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.close();
    let payment_no = number(&pay(&merchant, "key-1", &payment("A-1", "card_ok")).await);
    platform.gate.arrived(1).await;
    platform.to_orders.cut();
    platform.gate.reopen();
    let charged =
        "SELECT COUNT(*) FROM saga_steps WHERE step_name = 'CallPaymentChannel' AND status = 'succeeded'";
    while count(&platform.gateway, charged).await == 0 {
        tokio::task::yield_now().await;
    }
    let refused = cancel(&merchant, &payment_no).await;
    assert_eq!((refused.status, kind(&refused)), (409, "already-charged".to_owned()));
    platform.to_orders.restore();
    assert_eq!(ended(&merchant, &payment_no).await["status"], "success");
    let refused = cancel(&merchant, &payment_no).await;
    assert_eq!((refused.status, kind(&refused)), (409, "already-charged".to_owned()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("/api/v1/refunds"), "{refused:?}");
    assert_eq!(
        (charges(&platform).await, ended(&merchant, &payment_no).await["failure_reason"].clone()),
        (1, Value::Null)
    );
}

#[tokio::test]
async fn a_failed_payment_stays_failed_and_another_merchants_does_not_exist() {
    let (platform, merchant) = setup(&[]).await;
    let failed = pay(&merchant, "key-1", &payment("A-1", "card_declined")).await;
    let answer = cancel(&merchant, &number(&failed)).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("failed")));
    let paid = pay(&merchant, "key-2", &payment("A-2", "card_ok")).await;
    let stranger = platform.merchant(&merchant.base).await;
    assert_eq!(cancel(&stranger, &number(&paid)).await.status, 404);
    assert_eq!(cancel(&merchant, "PAY-NONE").await.status, 404);
}
