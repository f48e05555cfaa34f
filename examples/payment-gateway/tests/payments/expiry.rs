//! A payment that is not paid in time is turned back, unless its money is taken.

use std::time::Duration;

use serde_json::{Value, json};
use service_shell::{Clock, Settings};
use tokio::time::sleep;

use crate::platform::{Merchant, Platform, payment, serve};
use crate::{charges, count, pay, pay_and_look, word};

async fn setup() -> (Platform, Merchant, Clock) {
    let platform = Platform::start().await;
    let variables = platform.environment(&[
        ("STEP_RETRY_MS", "1"),
        ("STEP_PATIENCE", "10000"),
        ("PROVIDER_PAUSE_MS", "5"),
        ("SAGA_POLL_MS", "50"),
        ("REQUEST_WAIT_MS", "50"),
    ]);
    let (settings, clock) = (Settings::from_vars("payment-gateway", 0, variables).unwrap(), Clock::default());
    let (router, _drain) = payment_gateway::start_at(settings, clock.clone()).await.unwrap();
    let merchant = platform.merchant(&serve(router).await).await;
    (platform, merchant, clock)
}

#[tokio::test]
async fn a_payment_that_waits_for_a_neighbour_for_too_long_expires_and_nothing_is_charged() {
    let (platform, merchant, clock) = setup().await;
    platform.to_orders.cut();
    let body = payment("A-1", "card_ok");
    let open = pay(&merchant, "key-1", &body).await;
    assert_eq!(open.status, 202, "{open:?}");
    clock.advance(Duration::from_secs(1700));
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(
        count(&platform.gateway, "SELECT COUNT(*) FROM payments WHERE failure_reason IS NULL").await,
        1
    );
    clock.advance(Duration::from_secs(200));
    while count(&platform.gateway, "SELECT COUNT(*) FROM payments WHERE failure_reason IS NULL").await > 0 {
        sleep(Duration::from_millis(20)).await;
    }
    platform.to_orders.restore();
    let shown = pay_and_look(&merchant, "key-1", &body).await;
    assert_eq!((&shown["status"], &shown["failure_reason"]), (&json!("expired"), &json!("not_paid_in_time")));
    assert_eq!(charges(&platform).await, 0);
}

#[tokio::test]
async fn a_wish_to_expire_that_was_lost_with_its_process_is_made_again() {
    let (platform, merchant, clock) = setup().await;
    platform.to_orders.cut();
    let body = payment("A-1", "card_ok");
    pay(&merchant, "key-1", &body).await;
    // What a process leaves that dies between the note in the row and the wish to the saga.
    let pool = platform.gateway.open().await;
    sqlx::query("UPDATE payments SET failure_reason = 'not_paid_in_time'").execute(&pool).await.unwrap();
    pool.close().await;
    clock.advance(Duration::from_secs(1900));
    let turned =
        "SELECT COUNT(*) FROM saga_instances WHERE cancel_reason IS NOT NULL OR status <> 'in_progress'";
    while count(&platform.gateway, turned).await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    platform.to_orders.restore();
    let shown = pay_and_look(&merchant, "key-1", &body).await;
    assert_eq!((&shown["status"], &shown["failure_reason"]), (&json!("expired"), &json!("not_paid_in_time")));
    assert_eq!(charges(&platform).await, 0);
}

#[tokio::test]
async fn a_payment_whose_money_is_taken_does_not_expire() {
    let (platform, merchant, clock) = setup().await;
    platform.gate.close();
    let body = payment("A-1", "card_ok");
    pay(&merchant, "key-1", &body).await;
    platform.gate.arrived(1).await;
    platform.to_orders.cut();
    platform.gate.reopen();
    let charged =
        "SELECT COUNT(*) FROM saga_steps WHERE step_name = 'CallPaymentChannel' AND status = 'succeeded'";
    while count(&platform.gateway, charged).await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
    clock.advance(Duration::from_secs(7200));
    sleep(Duration::from_millis(2200)).await;
    platform.to_orders.restore();
    let shown = pay_and_look(&merchant, "key-1", &body).await;
    assert_eq!((&shown["status"], &shown["failure_reason"]), (&json!("success"), &Value::Null));
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "paid");
}
