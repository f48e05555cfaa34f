//! The files of `examples/observability` in a real Prometheus that scrapes the running services.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use service_shell::{ServiceToken, sign_webhook};
use testkit::Prometheus;
use tokio::time::{Instant, sleep};

use crate::services::{ALL, Services};

/// The census of open sagas is taken every 15 seconds; only a fault reaches this time.
const PATIENCE: Duration = Duration::from_secs(120);
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../observability");
/// The ports of the documentation, which the configuration names, in the order of [`ALL`].
const PORTS: [u16; ALL.len()] = [40002, 40003, 40004, 40005, 40014];

struct Api<'a> {
    http: &'a reqwest::Client,
    base: String,
}

impl Api<'_> {
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = reqwest::Url::parse_with_params(&format!("{}/api/v1/{path}", self.base), query).unwrap();
        let answer = self.http.get(url).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of an expression.
    async fn ask(&self, expression: &str) -> Vec<Value> {
        self.get("query", &[("query", expression)]).await["result"].as_array().unwrap().clone()
    }

    async fn names(&self) -> BTreeSet<String> {
        serde_json::from_value(self.get("label/__name__/values", &[]).await).unwrap()
    }

    async fn is_firing(&self, alert: &str) -> bool {
        let alerts = self.get("alerts", &[]).await;
        let mut all = alerts["alerts"].as_array().unwrap().iter();
        all.any(|one| one["labels"]["alertname"] == alert && one["state"] == "firing")
    }
}

/// Waits until the answer is empty: it says what is still missing.
async fn until<T: std::fmt::Debug>(missing: impl AsyncFn() -> Vec<T>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let still = missing().await;
        if still.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "never came: {still:#?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The files as they are, but for the ports, and with seconds instead of minutes.
fn settings(services: &Services) -> testkit::TempDir {
    let folder = testkit::temp_dir();
    let read = |name: &str| fs::read_to_string(Path::new(FILES).join(name)).unwrap();
    let mut scraped = read("prometheus.yml").replace("_interval: 15s", "_interval: 1s");
    for ((name, _), port) in ALL.iter().zip(PORTS) {
        let (usual, now) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", services.port(name)));
        assert!(scraped.contains(&usual), "{name} is not scraped at {usual}");
        scraped = scraped.replace(&usual, &now);
    }
    let rules = read("alerts.yml").replace("for: 1m", "for: 1s");
    fs::write(folder.path().join("prometheus.yml"), scraped).unwrap();
    fs::write(folder.path().join("alerts.yml"), rules).unwrap();
    folder
}

/// Every expression of the dashboard and of the rules.
async fn expressions(api: &Api<'_>) -> Vec<String> {
    let dashboard = fs::read_to_string(Path::new(FILES).join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let of_panels = targets.map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "1m"));
    let mut all: Vec<String> = of_panels.collect();
    let groups = api.get("rules", &[]).await;
    for rule in
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap())
    {
        all.push(rule["query"].as_str().unwrap().to_owned());
    }
    all
}

/// The names of metrics in an expression: a word of ours, or `up`.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = ["probity_", "http_requests", "http_request_", "database_", "payment_webhooks_"];
    words.filter(move |word| *word == "up" || ours.iter().any(|start| word.starts_with(start)))
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_rules_find_their_metrics_and_alerts_fire() {
    testkit::time_limit();
    let fast = [("STEP_RETRY_MS", "20".to_owned()), ("REQUEST_WAIT_MS", "1000".to_owned())];
    let mut services = Services::start(&ALL.map(|(name, _)| name), &fast);
    let folder = settings(&services);
    let prometheus = Prometheus::start(folder.path());
    let http = services.http.clone();
    let api = Api { http: &http, base: prometheus.url() };
    let merchant = services.merchant().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let paid = merchant.pay("order-1", "card_ok", trace).send().await.unwrap().text().await.unwrap();
    let paid: Value = serde_json::from_str(&paid).unwrap();

    let began = "payment_webhooks_contradicting_total == 0";
    until(async || if api.ask(began).await.is_empty() { vec![began] } else { vec![] }).await;
    assert!(!api.is_firing("WebhookContradicts").await && !api.is_firing("ServiceDown").await);
    let data = json!({"payment_no": paid["payment_no"], "channel_order_no": "ch_another", "amount": 100, "currency": "EUR"});
    let body = json!({"id": "evt_1", "type": "payment.charged", "data": data}).to_string();
    let secret = ServiceToken::for_this_machine("CHANNEL_WEBHOOK_SECRET");
    let signed = sign_webhook(secret.text().as_bytes(), chrono::Utc::now().timestamp(), body.as_bytes());
    let call = http.post(services.url("payment-gateway") + "/api/v1/webhooks/card").body(body);
    let call = signed.into_iter().fold(call, |call, (name, value)| call.header(name, value));
    assert_eq!(call.send().await.unwrap().status(), 200);

    // A neighbour that is away leaves a saga open.
    services.kill9("channel-adapter");
    drop(merchant.pay("order-2", "card_ok", trace).send().await);
    let expected = ["WebhookContradicts", "ServiceDown"];
    until(async || {
        let mut silent = Vec::new();
        for alert in expected {
            if !api.is_firing(alert).await {
                silent.push(alert);
            }
        }
        silent
    })
    .await;

    let all = expressions(&api).await;
    assert!(all.len() > 40, "{} expressions", all.len());
    let named: BTreeSet<&str> = all.iter().flat_map(|expression| metrics(expression)).collect();
    assert!(named.len() > 25, "{named:?}");
    until(async || {
        let known = api.names().await;
        named.iter().filter(|name| !known.contains(**name)).collect()
    })
    .await;
    for expression in &all {
        api.ask(expression).await;
    }
    let known = api.names().await;
    let summaries = api.ask("count by (__name__) ({quantile!=\"\",job=\"payment-platform\"})").await;
    assert!(summaries.is_empty() && known.contains("probity_saga_seconds_bucket"), "{summaries:?}");
}
