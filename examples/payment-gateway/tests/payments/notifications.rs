//! A merchant's server is told once of each end, signed, again while it does not answer, and by a person in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use service_shell::signature::body_sha256;
use service_shell::verify_webhook;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::platform::{Merchant, Platform, payment, read, serve};
use crate::{count, kind, pay, setup, word};

/// Tries that are over within a second, and an operator.
fn settings(operators: &str) -> [(&'static str, &str); 4] {
    [("NOTIFY_RETRY_MS", "5"), ("NOTIFY_RETRIES", "3"), ("SAGA_POLL_MS", "50"), ("OPERATORS", operators)]
}

fn ada() -> String {
    format!("ada:see+act:{}", body_sha256(b"the token of ada"))
}

/// The server of a merchant.
struct Shop {
    url: String,
    status: Arc<AtomicU16>,
    calls: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Shop {
    async fn open() -> Shop {
        let status = Arc::new(AtomicU16::new(204));
        let (sender, calls) = mpsc::unbounded_channel();
        let answers = status.clone();
        let hook = post(move |headers: HeaderMap, body: Bytes| async move {
            sender.send((headers, body)).unwrap();
            StatusCode::from_u16(answers.load(Ordering::SeqCst)).unwrap()
        });
        let url = format!("{}/hook", serve(Router::new().route("/hook", hook)).await);
        Shop { url, status, calls }
    }

    /// Waits for a message and checks its signature.
    async fn told(&mut self, secret: &str) -> Value {
        let (headers, body) = self.calls.recv().await.unwrap();
        verify_webhook(secret.as_bytes(), &headers, chrono::Utc::now().timestamp(), &body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }
}

async fn secret(merchant: &Merchant) -> String {
    let answer = merchant.get("/api/v1/notifications/secret").await.unwrap();
    answer.json()["secret"].as_str().unwrap().to_owned()
}

fn told_at(url: &str, order_no: &str, method: &str) -> Value {
    let mut body = payment(order_no, method);
    body["notify_url"] = json!(url);
    body
}

async fn until(platform: &Platform, table: &str, status: &str) {
    let sql = match table {
        "payments" => "SELECT notify_status FROM payments",
        _ => "SELECT notify_status FROM refunds",
    };
    while word(&platform.gateway, sql).await != status {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_end_is_told_once_with_the_signature_that_the_merchant_can_check() {
    let operators = ada();
    let (platform, merchant) = setup(&settings(&operators)).await;
    let (mut shop, secret) = (Shop::open().await, secret(&merchant).await);
    let paid = pay(&merchant, "key-1", &told_at(&shop.url, "A-1", "card_ok")).await.json();
    let told = shop.told(&secret).await;
    assert_eq!(
        (&told["type"], &told["data"]["payment_no"]),
        (&json!("payment.success"), &paid["payment_no"])
    );
    assert_eq!(told["data"]["status"], "success");
    until(&platform, "payments", "sent").await;
    let refund = json!({"payment_no": paid["payment_no"], "amount": 250, "currency": "USD"});
    let refunded = merchant.post("/api/v1/refunds", "back-1", &refund).await.unwrap().json();
    let told = shop.told(&secret).await;
    assert_eq!(
        (&told["type"], &told["data"]["refund_no"]),
        (&json!("refund.success"), &refunded["refund_no"])
    );
    until(&platform, "refunds", "sent").await;
    pay(&merchant, "key-2", &told_at(&shop.url, "A-2", "card_declined")).await;
    assert_eq!(shop.told(&secret).await["type"], "payment.failed");
    pay(&merchant, "key-3", &payment("A-3", "card_ok")).await;
    sleep(Duration::from_millis(1500)).await;
    assert!(shop.calls.try_recv().is_err(), "nobody asked to be told, or it was told twice");
    let stranger = platform.merchant(&merchant.base).await;
    assert_ne!(self::secret(&stranger).await, secret);
}

// proves: S-8
#[tokio::test]
async fn a_server_that_refuses_is_told_again_and_the_dead_letter_is_sent_again_by_an_operator() {
    let operators = ada();
    let (platform, merchant) = setup(&settings(&operators)).await;
    let (mut shop, secret) = (Shop::open().await, secret(&merchant).await);
    shop.status.store(500, Ordering::SeqCst);
    let paid = pay(&merchant, "key-1", &told_at(&shop.url, "A-1", "card_ok")).await.json();
    until(&platform, "payments", "failed").await;
    let mut told = vec![shop.told(&secret).await];
    while let Ok((_, body)) = shop.calls.try_recv() {
        told.push(serde_json::from_slice(&body).unwrap());
    }
    assert_eq!(told.len(), 4, "one try and three again");
    assert!(told.iter().all(|one| *one == told[0]), "the message is another one");

    let ask =
        |path: &str| merchant.http.get(format!("{}{path}", merchant.base)).bearer_auth("the token of ada");
    let letters = read(ask("/api/v1/sagas?type=notification&status=stuck")).await.unwrap().json();
    assert_eq!(letters["sagas"][0]["business_id"], paid["payment_no"]);
    let path = format!("/api/v1/sagas/notification/{}", paid["payment_no"].as_str().unwrap());
    let letter = read(ask(&path)).await.unwrap().json();
    shop.status.store(200, Ordering::SeqCst);
    let decision = json!({"row_version": letter["row_version"], "reason": "the shop is open again"});
    let send = merchant.http.post(format!("{}{path}/retry", merchant.base)).bearer_auth("the token of ada");
    assert_eq!(read(send.json(&decision)).await.unwrap().status, 200);
    assert_eq!(shop.told(&secret).await, told[0]);
    until(&platform, "payments", "sent").await;
}

#[tokio::test]
async fn an_address_that_cannot_be_told_at_is_refused() {
    let (platform, merchant) = setup(&[]).await;
    for url in ["", "shop", "ftp://shop.example.com/", "https://ann@shop.example.com/"] {
        let refused = pay(&merchant, "key-1", &told_at(url, "A-1", "card_ok")).await;
        assert_eq!((refused.status, kind(&refused)), (422, "invalid-field".to_owned()), "{url}");
    }
    assert_eq!(count(&platform.gateway, "SELECT COUNT(*) FROM payments").await, 0);
}
