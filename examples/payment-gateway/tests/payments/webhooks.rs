//! Webhooks: the channel's own, whoever sends them again, late or forged, and the payment that only a webhook can save.

use std::time::Duration;

use serde_json::{Value, json};
use service_shell::{ServiceToken, Settings, sign_webhook};
use tokio::time::sleep;

use crate::platform::{Answer, Merchant, Platform, listen_on, payment, read};
use crate::{charges, count, kind, pay, pay_and_look, setup, word};

/// Requests do not wait, and a channel that is away is tried often and for long.
const SHORT: [(&str, &str); 6] = [
    ("STEP_TIMEOUT_MS", "400"),
    ("STEP_RETRY_MS", "1"),
    ("STEP_PATIENCE", "10000"),
    ("PROVIDER_PAUSE_MS", "5"),
    ("SAGA_POLL_MS", "50"),
    ("REQUEST_WAIT_MS", "100"),
];

fn event(id: &str, kind: &str, payment_no: &str, channel_order_no: &str) -> String {
    let data = json!({"payment_no": payment_no, "amount": 1250, "currency": "USD", "channel_order_no": channel_order_no,
                      "status": "told by the type", "reason": null});
    json!({"id": id, "type": kind, "data": data}).to_string()
}

async fn send_signed(merchant: &Merchant, secret: &str, at: i64, body: &str) -> Answer {
    let call = merchant.http.post(format!("{}/api/v1/webhooks/card", merchant.base)).body(body.to_owned());
    let signed = sign_webhook(secret.as_bytes(), at, body.as_bytes());
    read(signed.into_iter().fold(call, |call, (name, value)| call.header(name, value))).await.unwrap()
}

/// Sends a webhook as the channel does; answers what became of it.
async fn send(merchant: &Merchant, body: &str) -> Answer {
    let secret = ServiceToken::for_this_machine("CHANNEL_WEBHOOK_SECRET");
    send_signed(merchant, secret.text(), chrono::Utc::now().timestamp(), body).await
}

async fn fate(merchant: &Merchant, body: &str) -> String {
    let answer = send(merchant, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["status"].as_str().unwrap().to_owned()
}

async fn look(merchant: &Merchant, payment_no: &str) -> Value {
    merchant.get(&format!("/api/v1/payments/{payment_no}")).await.unwrap().json()
}

const STORED: &str = "SELECT COUNT(*) FROM payment_callbacks";

#[tokio::test]
async fn the_channel_tells_of_charges_refusals_and_refunds_once_the_gateway_is_there() {
    let port = testkit::free_port();
    let url = format!("http://127.0.0.1:{port}/api/v1/webhooks/card");
    let platform = Platform::start_with(&[("CHANNEL_WEBHOOK_URL", &url)]).await;
    let settings = Settings::from_vars("payment-gateway", 0, platform.environment(&[])).unwrap();
    let (router, _drain) = payment_gateway::start(settings).await.unwrap();
    let merchant = platform.merchant(&format!("http://{}", listen_on(port, router).await)).await;
    let paid = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    pay(&merchant, "key-2", &payment("A-2", "card_declined")).await;
    let refund = json!({"payment_no": paid["payment_no"], "amount": 1, "currency": "USD"});
    assert_eq!(merchant.post("/api/v1/refunds", "back-1", &refund).await.unwrap().status, 201);
    while count(&platform.gateway, STORED).await < 3 {
        sleep(Duration::from_millis(20)).await;
    }
    let pool = platform.gateway.open().await;
    let mut told: Vec<String> =
        sqlx::query_scalar("SELECT event_type FROM payment_callbacks").fetch_all(&pool).await.unwrap();
    pool.close().await;
    told.sort_unstable();
    assert_eq!(told, ["payment.charged", "payment.refused", "refund.refunded"]);
    let open = "SELECT COUNT(*) FROM payment_callbacks WHERE status NOT IN ('applied', 'unchanged')";
    assert_eq!(count(&platform.gateway, open).await, 0);
    while count(&platform.channel, "SELECT COUNT(*) FROM channel_events WHERE delivered_at IS NULL").await > 0
    {
        sleep(Duration::from_millis(20)).await;
    }
}

// proves: S-8
#[tokio::test]
async fn a_payment_whose_channel_charged_and_fell_silent_is_paid_by_its_webhook() {
    let (platform, merchant) = setup(&SHORT).await;
    platform.gate.keep_answers();
    let outage = async {
        platform.gate.answered(1).await;
        platform.to_channel.cut();
    };
    let body = payment("A-1", "card_ok");
    let (first, ()) = tokio::join!(pay(&merchant, "key-1", &body), outage);
    let payment_no = first.json()["payment_no"].as_str().unwrap().to_owned();
    assert_eq!(look(&merchant, &payment_no).await["status"], "processing");
    let charge = word(&platform.channel, "SELECT channel_order_no FROM channel_charges").await;
    assert_eq!(fate(&merchant, &event("evt_1", "payment.charged", &payment_no, &charge)).await, "applied");
    // The channel is still away.
    let shown = pay_and_look(&merchant, "key-1", &body).await;
    assert_eq!((&shown["status"], &shown["channel_order_no"]), (&json!("success"), &json!(charge)));
    assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "paid");
    assert_eq!(charges(&platform).await, 1);
}

#[tokio::test]
async fn a_webhook_is_processed_once_and_a_late_one_changes_nothing() {
    let (platform, merchant) = setup(&[]).await;
    let paid = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    let (payment_no, charge) =
        (paid["payment_no"].as_str().unwrap(), paid["channel_order_no"].as_str().unwrap());
    for (id, kind, number, expected) in [
        ("evt_1", "payment.charged", charge, "unchanged"),
        ("evt_2", "payment.refused", charge, "unchanged"),
        ("evt_3", "payment.cancelled", charge, "contradicts"),
        ("evt_4", "payment.charged", "ch_another", "contradicts"),
        ("evt_5", "payment.disputed", charge, "ignored"),
    ] {
        for _ in 0..2 {
            assert_eq!(fate(&merchant, &event(id, kind, payment_no, number)).await, expected, "{id}");
        }
    }
    // The second delivery of an id says nothing, whatever it says.
    assert_eq!(
        fate(&merchant, &event("evt_1", "payment.charged", payment_no, "ch_another")).await,
        "unchanged"
    );
    assert_eq!(look(&merchant, payment_no).await, paid);
    assert_eq!(count(&platform.gateway, STORED).await, 5);
    let of_the_first = "SELECT deliveries FROM payment_callbacks WHERE event_id = 'evt_1'";
    assert_eq!(count(&platform.gateway, of_the_first).await, 3);

    let failed = pay(&merchant, "key-2", &payment("A-2", "card_declined")).await.json();
    let payment_no = failed["payment_no"].as_str().unwrap();
    assert_eq!(fate(&merchant, &event("evt_6", "payment.charged", payment_no, "ch_late")).await, "unchanged");
    assert_eq!(look(&merchant, payment_no).await, failed);
}

#[tokio::test]
async fn what_is_not_signed_by_the_channel_leaves_no_trace() {
    let (platform, merchant) = setup(&[]).await;
    let paid = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    let body = event("evt_1", "payment.charged", paid["payment_no"].as_str().unwrap(), "ch_another");
    let (now, secret) =
        (chrono::Utc::now().timestamp(), ServiceToken::for_this_machine("CHANNEL_WEBHOOK_SECRET"));
    let unsigned = merchant.http.post(format!("{}/api/v1/webhooks/card", merchant.base)).body(body.clone());
    let refused = [
        read(unsigned).await.unwrap(),
        send_signed(&merchant, &merchant.secret, now, &body).await,
        send_signed(&merchant, secret.text(), now - 3600, &body).await,
        send_signed(&merchant, secret.text(), now + 3600, &body).await,
    ];
    for answer in refused {
        assert_eq!((answer.status, kind(&answer)), (401, "authentication-failed".to_owned()));
    }
    // Who cannot sign does not learn which channels there are.
    let elsewhere =
        || merchant.http.post(format!("{}/api/v1/webhooks/nonsuch", merchant.base)).body(body.clone());
    assert_eq!(read(elsewhere()).await.unwrap().status, 401);
    let signed = sign_webhook(secret.text().as_bytes(), now, body.as_bytes());
    let signed = signed.into_iter().fold(elsewhere(), |call, (name, value)| call.header(name, value));
    assert_eq!(read(signed).await.unwrap().status, 404);
    assert_eq!(count(&platform.gateway, STORED).await, 0);
}

#[tokio::test]
async fn a_signed_webhook_of_another_sum_or_that_is_no_event_is_kept_and_changes_nothing() {
    let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "50")]).await;
    platform.gate.close();
    let open = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    let payment_no = open["payment_no"].as_str().unwrap();
    let wrong = event("evt_1", "payment.charged", payment_no, "ch_1");
    for (id, from, to) in [("evt_2", "1250", "1"), ("evt_3", "USD", "EUR")] {
        let wrong = wrong.replace("evt_1", id).replace(from, to);
        assert_eq!(fate(&merchant, &wrong).await, "mismatch");
    }
    for body in ["", "{", "[]", "{\"id\": \"evt_4\", \"type\": \"payment.charged\", \"data\": {}}"] {
        let answer = send(&merchant, body).await;
        assert_eq!((answer.status, kind(&answer)), (422, "unreadable-event".to_owned()));
    }
    assert_eq!(count(&platform.gateway, STORED).await, 6);
    let noted =
        "SELECT COUNT(*) FROM payments WHERE channel_order_no IS NOT NULL OR failure_reason IS NOT NULL";
    assert_eq!(count(&platform.gateway, noted).await, 0);
    platform.gate.reopen();
}

#[tokio::test]
async fn a_webhook_that_comes_before_its_payment_is_taken_up_when_the_payment_is_there() {
    let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "50")]).await;
    // Those of another kind than their subject never become ready, and stand in nobody's way.
    for n in 0..100 {
        let wrong = event(&format!("evt_wrong_{n}"), "refund.refunded", "PAY-EARLY", "ch_1");
        assert_eq!(fate(&merchant, &wrong.replace("\"payment_no\"", "\"refund_no\"")).await, "parked");
    }
    let early = event("evt_1", "payment.charged", "PAY-EARLY", "ch_early");
    assert_eq!(fate(&merchant, &early).await, "parked");
    assert_eq!(fate(&merchant, &early).await, "parked");
    platform.gate.close();
    pay(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    let pool = platform.gateway.open().await;
    sqlx::query("UPDATE payments SET payment_no = 'PAY-EARLY'").execute(&pool).await.unwrap();
    pool.close().await;
    let became = "SELECT status FROM payment_callbacks WHERE event_id = 'evt_1'";
    while word(&platform.gateway, became).await == "parked" {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(word(&platform.gateway, became).await, "applied");
    assert_eq!(word(&platform.gateway, "SELECT channel_order_no FROM payments").await, "ch_early");
}

/// An open payment whose charge is held back, and its number.
async fn open_payment(extra: &[(&'static str, &str)]) -> (Platform, Merchant, String) {
    let (platform, merchant) = setup(extra).await;
    platform.gate.close();
    let open = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    platform.gate.arrived(1).await;
    (platform, merchant, open["payment_no"].as_str().unwrap().to_owned())
}

async fn until(place: &crate::Place, sql: &'static str) {
    while count(place, sql).await == 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

const STUCK: &str =
    "SELECT COUNT(*) FROM saga_instances WHERE business_type = 'payment' AND status = 'stuck'";

#[tokio::test]
async fn a_charge_that_the_channel_voided_is_no_proof_any_more() {
    let (platform, merchant, payment_no) = open_payment(&[("REQUEST_WAIT_MS", "50")]).await;
    for (id, kind, expected) in [
        ("evt_1", "payment.charged", "applied"),
        ("evt_2", "payment.cancelled", "applied"),
        ("evt_3", "payment.charged", "unchanged"),
    ] {
        assert_eq!(fate(&merchant, &event(id, kind, &payment_no, "ch_1")).await, expected, "{id}");
    }
    until(&platform.gateway, "SELECT COUNT(*) FROM payments WHERE channel_order_no IS NULL").await;
    platform.gate.reopen();
    let shown = pay_and_look(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    let charge = word(&platform.channel, "SELECT channel_order_no FROM channel_charges").await;
    assert_eq!((&shown["status"], &shown["channel_order_no"]), (&json!("success"), &json!(charge)));
}

#[tokio::test]
async fn another_charge_or_a_voided_one_stops_the_payment_before_its_order_is_paid() {
    for kind in ["payment.charged", "payment.cancelled"] {
        // The answer comes after the webhook, and before anybody asks.
        let (platform, merchant) = setup(&[("REQUEST_WAIT_MS", "100")]).await;
        platform.gate.keep_answers();
        let body = payment("A-1", "card_ok");
        let told = async {
            platform.gate.answered(1).await;
            let payment_no = word(&platform.gateway, "SELECT payment_no FROM payments").await;
            let charge = match kind {
                "payment.charged" => "ch_other".to_owned(),
                _ => word(&platform.channel, "SELECT channel_order_no FROM channel_charges").await,
            };
            assert_eq!(fate(&merchant, &event("evt_1", kind, &payment_no, &charge)).await, "applied");
            platform.gate.answer_again();
        };
        let _ = tokio::join!(pay(&merchant, "key-1", &body), told);
        until(&platform.gateway, "SELECT COUNT(*) FROM saga_instances WHERE status = 'paused'").await;
        assert_eq!(word(&platform.orders, "SELECT status FROM orders").await, "pending", "{kind}");
        assert_eq!(word(&platform.gateway, "SELECT status FROM payments").await, "processing", "{kind}");
    }
}

#[tokio::test]
async fn a_void_of_a_charge_whose_order_is_being_paid_is_a_contradiction() {
    let (platform, merchant, payment_no) = open_payment(&SHORT).await;
    platform.to_orders.cut();
    platform.gate.reopen();
    let charged =
        "SELECT COUNT(*) FROM saga_steps WHERE step_name = 'CallPaymentChannel' AND status = 'succeeded'";
    until(&platform.gateway, charged).await;
    let charge = word(&platform.channel, "SELECT channel_order_no FROM channel_charges").await;
    let void = event("evt_1", "payment.cancelled", &payment_no, &charge);
    assert_eq!(fate(&merchant, &void).await, "contradicts");
    platform.to_orders.restore();
    let shown = pay_and_look(&merchant, "key-1", &payment("A-1", "card_ok")).await;
    assert_eq!(shown["channel_order_no"], json!(charge));
}

#[tokio::test]
async fn a_refund_that_ended_otherwise_at_the_channel_is_a_contradiction() {
    let (platform, merchant) = setup(&[]).await;
    let paid = pay(&merchant, "key-1", &payment("A-1", "card_ok")).await.json();
    let refund = async |key: &str| {
        let body = json!({"payment_no": paid["payment_no"], "amount": 100, "currency": "USD"});
        merchant.post("/api/v1/refunds", key, &body).await.unwrap().json()
    };
    let made = refund("back-1").await;
    let channel = platform.channel.open().await;
    sqlx::query("UPDATE channel_charges SET amount = 1").execute(&channel).await.unwrap();
    channel.close().await;
    let failed = refund("back-2").await;
    for (id, refund, kind, expected) in [
        ("evt_1", &made, "refund.refunded", "unchanged"),
        ("evt_2", &made, "refund.refused", "contradicts"),
        ("evt_3", &failed, "refund.refused", "unchanged"),
        ("evt_4", &failed, "refund.refunded", "contradicts"),
    ] {
        let data = json!({"refund_no": refund["refund_no"], "amount": 100, "currency": "USD"});
        let event = json!({"id": id, "type": kind, "data": data}).to_string();
        assert_eq!(fate(&merchant, &event).await, expected, "{id}");
    }
}

#[tokio::test]
async fn a_wake_up_that_was_lost_with_its_process_is_made_by_the_next_sweep() {
    let patience = [SHORT[0], SHORT[1], ("STEP_PATIENCE", "2"), SHORT[3], SHORT[4], SHORT[5]];
    let (platform, merchant) = setup(&patience).await;
    platform.gate.keep_answers();
    let outage = async {
        platform.gate.answered(1).await;
        platform.to_channel.cut();
    };
    let body = payment("A-1", "card_ok");
    let _ = tokio::join!(pay(&merchant, "key-1", &body), outage);
    until(&platform.gateway, STUCK).await;
    platform.to_channel.restore();
    // What a process leaves that dies after it has stored a webhook.
    let pool = platform.gateway.open().await;
    sqlx::query(
        "INSERT INTO payment_callbacks (id, channel, event_id, event_type, subject, raw, status)
         SELECT id, 'card', 'evt_1', 'payment.charged', payment_no, '{}', 'applied' FROM payments",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;
    let shown = pay_and_look(&merchant, "key-1", &body).await;
    assert_ne!(shown["status"], "processing");
    until(&platform.gateway, "SELECT COUNT(*) FROM payment_callbacks WHERE followed_at IS NOT NULL").await;
}
