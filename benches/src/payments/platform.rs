//! The five services as processes, and a merchant that pays.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service_shell::random_text;
use service_shell::signature::SignedBy;

use super::metrics::Metrics;

const SERVICES: [(&str, &str); 5] = [
    ("merchant-service", "MERCHANT_SERVICE_URL"),
    ("payment-gateway", "PAYMENT_GATEWAY_URL"),
    ("order-service", "ORDER_SERVICE_URL"),
    ("channel-adapter", "CHANNEL_ADAPTER_URL"),
    ("withdrawal-service", "WITHDRAWAL_SERVICE_URL"),
];

/// The databases of the services.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stores {
    /// A file each.
    Sqlite,
    /// A database each, and one Redis for idempotency.
    PostgresAndRedis,
}

impl fmt::Display for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "SQLite",
            Self::PostgresAndRedis => "PostgreSQL and Redis",
        })
    }
}

/// The running services.
pub(super) struct Platform {
    ports: [u16; 5],
    client: reqwest::Client,
    _programs: Vec<testkit::Program>,
    _databases: Vec<testkit::TestDatabase>,
    _redis: Option<testkit::Redis>,
    _folder: testkit::TempDir,
}

impl Platform {
    pub(super) async fn start(stores: Stores, quick: bool) -> Platform {
        let program = built(stores, quick);
        let folder = testkit::temp_dir();
        let ports = SERVICES.map(|_| testkit::free_port());
        let mut shared = vec![
            ("SERVICE_TOKEN", random_text(32)),
            ("DATA_DIR", folder.path().display().to_string()),
            ("RUST_LOG", "error".to_owned()),
        ];
        for ((_, variable), port) in SERVICES.iter().zip(ports) {
            shared.push((variable, format!("http://127.0.0.1:{port}")));
        }
        let redis = matches!(stores, Stores::PostgresAndRedis).then(testkit::Redis::start);
        if let Some(redis) = &redis {
            shared.push(("REDIS_URL", redis.url().to_owned()));
        }
        let (mut programs, mut databases) = (Vec::new(), Vec::new());
        for ((name, _), port) in SERVICES.iter().zip(ports) {
            let mut command = Command::new(&program);
            command.args(["service", name]).envs(shared.iter().cloned()).env("PORT", port.to_string());
            if redis.is_some() {
                let database = testkit::Postgres::shared().database();
                command.env("DATABASE_URL", database.url());
                databases.push(database);
            }
            let mut program = testkit::Program::spawn(command);
            program.wait_for_port(port);
            programs.push(program);
        }
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build();
        let client = client.expect("a client");
        Platform { ports, client, _programs: programs, _databases: databases, _redis: redis, _folder: folder }
    }

    fn url(&self, service: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[service])
    }

    pub(super) async fn metrics(&self) -> Metrics {
        let mut all = Vec::new();
        for (at, (name, _)) in SERVICES.iter().enumerate() {
            let answer = self.client.get(self.url(at, "/metrics")).send().await.expect("metrics");
            all.push((*name, answer.text().await.expect("metrics")));
        }
        all
    }

    pub(super) async fn merchant(&self) -> Merchant {
        let body = json!({"name": "Bench", "email": format!("{}@example.com", random_text(12))});
        let url = self.url(0, "/api/v1/merchants/register");
        let answer = self.client.post(url).json(&body).send().await.expect("a merchant");
        let made: Value = answer.json().await.expect("a merchant");
        let text = |field: &str| made["api_keys"][0][field].as_str().expect("a key").to_owned();
        let keys = (text("api_key"), text("api_secret"));
        Merchant {
            client: self.client.clone(),
            gateway: self.url(1, ""),
            keys: Arc::new(keys),
            paid: Arc::default(),
        }
    }
}

/// Builds the program of all services, and tells where it is.
fn built(stores: Stores, quick: bool) -> std::path::PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "-p", "payment-platform", "--message-format", "json"]);
    if !quick {
        cargo.arg("--release");
    }
    if matches!(stores, Stores::PostgresAndRedis) {
        cargo.args(["--features", "postgres,redis"]);
    }
    let output = cargo.stderr(std::process::Stdio::inherit()).output().expect("cargo");
    assert!(output.status.success(), "the services do not build");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let made = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = made.filter_map(|message| Some(message["executable"].as_str()?.into()));
    programs.next_back().expect("a program")
}

/// A merchant's program.
#[derive(Clone)]
pub(super) struct Merchant {
    client: reqwest::Client,
    gateway: String,
    keys: Arc<(String, String)>,
    paid: Arc<AtomicU64>,
}

impl Merchant {
    /// Makes one payment, with a key and an order number of its own, to its end.
    pub(super) async fn pay(&self) {
        const PATH: &str = "/api/v1/payments";
        let order = format!("ORDER-{}", self.paid.fetch_add(1, Ordering::Relaxed));
        let body = json!({"order_no": order, "amount": 1000, "currency": "EUR", "payment_method": "card_ok"});
        let body = body.to_string().into_bytes();
        let now = chrono::Utc::now().timestamp();
        let (key, secret) = &*self.keys;
        let signed =
            SignedBy::sign(key, secret.as_bytes(), &Method::POST, PATH, now, &random_text(24), &body);
        let mut request =
            self.client.post(format!("{}{PATH}", self.gateway)).header("idempotency-key", &order);
        for (name, value) in signed.headers() {
            request = request.header(name, value);
        }
        let answer =
            request.header("content-type", "application/json").body(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        assert_eq!(status, 201, "{text}");
    }
}
