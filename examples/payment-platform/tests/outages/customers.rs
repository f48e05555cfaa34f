//! The customers of the platform during the outages. A customer repeats each request under its key until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service_shell::signature::SignedBy;
use service_shell::{HttpTimeouts, random_text};
use testkit::Rng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::neighbours::{Neighbours, OPERATOR_TOKEN, SERVICE_TOKEN};

const CARDS: [&str; 7] =
    ["card_ok", "card_ok", "card_ok", "card_slow", "card_hangs", "card_declined", "card_never_arrives"];
const ACCOUNTS: [&str; 5] = ["acct_ok", "acct_ok", "acct_slow", "acct_hangs", "acct_declined"];
/// New customers come only while no more than this many wait for an answer.
const WAITING_MOST: usize = 40;
/// The pauses of a customer who repeats a request double from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// Far more than all withdrawals together.
pub(crate) const CREDIT: i64 = 1_000_000_000;

/// The last answer that a customer got.
#[derive(Debug)]
pub(crate) enum Told {
    Payment {
        payment_no: String,
        status: String,
    },
    /// The money of this payment was given back, and its order marked so.
    Refunded {
        payment_no: String,
    },
    Withdrawal {
        id: String,
    },
}

/// One merchant, with everything its customers need.
struct Shop {
    http: reqwest::Client,
    gateway: String,
    orders: String,
    channel: String,
    withdrawals: String,
    api_key: String,
    secret: String,
    merchant: String,
    /// The id of each of [`ACCOUNTS`].
    accounts: Vec<Value>,
    closing: AtomicBool,
}

/// All customers who have come to the shop.
pub(crate) struct Customers {
    shop: Arc<Shop>,
    here: Vec<JoinHandle<Vec<Told>>>,
}

impl Customers {
    /// Registers the merchant, its bank accounts and its balance, before anything goes wrong.
    pub(crate) async fn open(neighbours: &Neighbours) -> Customers {
        // Longer than a request may wait, so that an answer is seldom missed.
        let timeouts = HttpTimeouts { total: Duration::from_secs(20), ..HttpTimeouts::default() };
        let http = service_shell::http_client(timeouts).unwrap();
        let body = json!({"name": "Tea Shop", "email": "tea@example.com"});
        let url = format!("{}/api/v1/merchants/register", neighbours.url("merchant-service"));
        let made: Value = http.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        let keys = made["api_keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["mode"] == "test").unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut shop = Shop {
            http,
            gateway: neighbours.url("payment-gateway"),
            orders: neighbours.url("order-service"),
            channel: neighbours.url("channel-adapter"),
            withdrawals: neighbours.url("withdrawal-service"),
            api_key: text(&key["api_key"]),
            secret: text(&key["api_secret"]),
            merchant: text(&made["merchant"]["id"]),
            accounts: Vec::new(),
            closing: AtomicBool::new(false),
        };
        for (number, account) in ACCOUNTS.iter().enumerate() {
            let body = json!({"holder": "Tea Shop", "account": account, "currency": "USD"});
            let url = format!("{}/api/v1/bank-accounts", shop.withdrawals);
            let (_, added) = shop.internal(&url, &format!("account-{number}"), &body).await;
            shop.accounts.push(added["id"].clone());
        }
        let body = json!({
            "merchant_id": shop.merchant, "mode": "production", "reference": "SETTLE-1", "amount": CREDIT, "currency": "USD",
        });
        let url = format!("{}/api/v1/balances/credits", shop.withdrawals);
        assert_eq!(shop.internal(&url, "credit", &body).await.0, 201);
        Customers { shop: Arc::new(shop), here: Vec::new() }
    }

    /// The customers of a round: four payments, some of which are given back, and a withdrawal. They come when not too
    /// many are waiting already: the outages are what is tested, not how much a machine can bear.
    pub(crate) async fn come(&mut self, rng: &mut Rng, round: u64) {
        while self.here.iter().filter(|customer| !customer.is_finished()).count() > WAITING_MOST {
            sleep(Duration::from_millis(100)).await;
        }
        for number in 0..4 {
            let (shop, card) = (Arc::clone(&self.shop), *rng.pick::<&str>(&CARDS));
            let (wait, refunds) = (Duration::from_millis(rng.between(0, 400)), rng.between(0, 2) == 0);
            self.here.push(tokio::spawn(async move {
                sleep(wait).await;
                shop.buy(&format!("R{round}-{number}"), card, refunds).await
            }));
        }
        let (shop, account) = (Arc::clone(&self.shop), rng.between(0, ACCOUNTS.len() as u64 - 1));
        let wait = Duration::from_millis(rng.between(0, 400));
        self.here.push(tokio::spawn(async move {
            sleep(wait).await;
            vec![shop.withdraw(round, usize::try_from(account).unwrap()).await]
        }));
    }

    /// Waits until all customers have been answered, and returns what they were told.
    pub(crate) async fn leave(&mut self, patience: Duration) -> Vec<Told> {
        let mut told = Vec::new();
        let all = async {
            for customer in self.here.drain(..) {
                told.extend(customer.await.unwrap());
            }
        };
        let answered = timeout(patience, all).await;
        self.shop.closing.store(true, Ordering::Relaxed);
        assert!(answered.is_ok(), "every customer is answered once everybody is back");
        told
    }

    /// An operator lets a saga go on.
    pub(crate) async fn retry(&self, saga: &str) {
        let shop = &self.shop;
        let service = if saga.starts_with("payment/") { &shop.gateway } else { &shop.withdrawals };
        let url = format!("{service}/api/v1/sagas/{saga}");
        let seen = shop.http.get(&url).bearer_auth(OPERATOR_TOKEN).send().await.unwrap();
        let seen: Value = seen.json().await.unwrap();
        let verb = if seen["status"] == "stuck" { "retry" } else { "resume" };
        let decision = json!({"row_version": seen["row_version"], "reason": "all services are back"});
        let call = shop.http.post(format!("{url}/{verb}")).bearer_auth(OPERATOR_TOKEN);
        let answer = call.json(&decision).send().await.unwrap();
        assert!(answer.status().is_success(), "{saga}: {}", answer.text().await.unwrap());
    }
}

impl Shop {
    /// Pays; may want the money back of what was paid.
    async fn buy(&self, order_no: &str, card: &str, refunds: bool) -> Vec<Told> {
        let body = json!({"order_no": order_no, "amount": 1250, "currency": "USD", "payment_method": card});
        let answer = self.until_answered(&[201, 202], || self.signed(order_no, &body)).await.1;
        let [payment_no, status] =
            ["payment_no", "status"].map(|name| answer[name].as_str().unwrap().to_owned());
        let paid = status == "success";
        let mut told = vec![Told::Payment { payment_no: payment_no.clone(), status }];
        if paid && refunds {
            let body = json!({
                "refund_no": format!("REF-{order_no}"), "payment_no": payment_no, "amount": 1250, "currency": "USD",
            });
            let url = format!("{}/api/v1/channel/refunds", self.channel);
            let key = format!("refund-{order_no}");
            assert_eq!(self.internal(&url, &key, &body).await.0, 201);
            let url = format!("{}/api/v1/orders/{order_no}/refund", self.orders);
            assert_eq!(self.internal(&url, &key, &json!({"reason": "returned"})).await.0, 200);
            told.push(Told::Refunded { payment_no });
        }
        told
    }

    async fn withdraw(&self, round: u64, account: usize) -> Told {
        let body = json!({
            "amount": 1_000, "currency": "USD", "speed": "normal", "bank_account_id": self.accounts[account],
        });
        let url = format!("{}/api/v1/withdrawals", self.withdrawals);
        let (_, made) = self.internal(&url, &format!("withdraw-{round}"), &body).await;
        let id = made["id"].as_str().unwrap().to_owned();
        for (verb, body) in [("approve", json!({})), ("execute", json!({}))] {
            let url = format!("{}/api/v1/withdrawals/{id}/{verb}", self.withdrawals);
            let call = || {
                let call = self.http.post(&url).bearer_auth(OPERATOR_TOKEN);
                call.header("idempotency-key", format!("{verb}-{round}")).json(&body)
            };
            self.until_answered(&[200, 202], call).await;
        }
        Told::Withdrawal { id }
    }

    /// A call of another service on behalf of the merchant, until it is answered. The payments are those of its test key.
    async fn internal(&self, url: &str, key: &str, body: &Value) -> (u16, Value) {
        let mode = if url.starts_with(&self.withdrawals) { "production" } else { "test" };
        let call = || {
            let call = self.http.post(url).bearer_auth(SERVICE_TOKEN).header("idempotency-key", key);
            call.header("x-merchant-id", &self.merchant).header("x-merchant-mode", mode).json(body)
        };
        self.until_answered(&[200, 201], call).await
    }

    fn signed(&self, key: &str, body: &Value) -> reqwest::RequestBuilder {
        let (path, body) = ("/api/v1/payments", body.to_string());
        let (now, nonce) = (chrono::Utc::now().timestamp(), random_text(24));
        let secret = self.secret.as_bytes();
        let signed = SignedBy::sign(&self.api_key, secret, &Method::POST, path, now, &nonce, body.as_bytes());
        let call = self.http.post(format!("{}{path}", self.gateway)).body(body.clone());
        let call = signed.headers().into_iter().fold(call, |call, (name, value)| call.header(name, value));
        call.header("content-type", "application/json").header("idempotency-key", key)
    }

    /// Repeats a request under its key until one of these statuses comes. Until then every answer must be one that
    /// leaves the outcome open: in flight, unknown, or a neighbour is away.
    async fn until_answered(
        &self,
        wanted: &[u16],
        call: impl Fn() -> reqwest::RequestBuilder,
    ) -> (u16, Value) {
        let [mut pause, longest] = PAUSES;
        loop {
            if let Ok(answer) = call().send().await {
                let status = answer.status().as_u16();
                let body = answer.text().await;
                if wanted.contains(&status)
                    && let Ok(body) = &body
                {
                    return (status, serde_json::from_str(body).unwrap());
                }
                assert!(matches!(status, 200..300 | 409 | 500 | 503), "{status}: {body:?}");
            }
            assert!(!self.closing.load(Ordering::Relaxed), "not answered in time: {:?}", call().build());
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}
