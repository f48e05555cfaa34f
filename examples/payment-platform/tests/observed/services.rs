//! Services as processes, and one merchant of theirs.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use service_shell::signature::SignedBy;
use service_shell::{HttpTimeouts, http_client, random_text};
use testkit::Program;
use tokio::time::{Instant, sleep};

/// All services, and the variables by which the others find them.
pub(crate) const ALL: [(&str, &str); 5] = [
    ("merchant-service", "MERCHANT_SERVICE_URL"),
    ("payment-gateway", "PAYMENT_GATEWAY_URL"),
    ("order-service", "ORDER_SERVICE_URL"),
    ("channel-adapter", "CHANNEL_ADAPTER_URL"),
    ("withdrawal-service", "WITHDRAWAL_SERVICE_URL"),
];

pub(crate) struct Services {
    pub(crate) http: reqwest::Client,
    ports: BTreeMap<&'static str, u16>,
    programs: BTreeMap<&'static str, Program>,
    environment: Vec<(&'static str, String)>,
    #[cfg(feature = "postgres")]
    databases: BTreeMap<&'static str, testkit::TestDatabase>,
    _folder: testkit::TempDir,
}

impl Services {
    /// Starts these services with these settings.
    pub(crate) fn start(names: &[&'static str], settings: &[(&'static str, String)]) -> Services {
        let folder = testkit::temp_dir();
        let ports: BTreeMap<_, _> = ALL.iter().map(|(name, _)| (*name, testkit::free_port())).collect();
        let mut environment = settings.to_vec();
        environment.push(("DATA_DIR", folder.path().display().to_string()));
        environment.extend(ALL.iter().map(|(name, url)| (*url, format!("http://127.0.0.1:{}", ports[name]))));
        let timeouts = HttpTimeouts { total: Duration::from_secs(30), ..HttpTimeouts::default() };
        let mut services = Services {
            http: http_client(timeouts).unwrap(),
            ports,
            programs: BTreeMap::new(),
            environment,
            #[cfg(feature = "postgres")]
            databases: names.iter().map(|name| (*name, testkit::Postgres::shared().database())).collect(),
            _folder: folder,
        };
        for name in names {
            services.spawn(name);
        }
        services
    }

    /// Starts a service, again after [`Services::kill9`].
    pub(crate) fn spawn(&mut self, name: &'static str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_payment-platform"));
        command.args(["service", name]).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.env("PORT", self.ports[name].to_string());
        #[cfg(feature = "postgres")]
        command.env("DATABASE_URL", self.databases[name].url());
        let mut program = Program::spawn(command);
        program.wait_for_port(self.ports[name]);
        self.programs.insert(name, program);
    }

    pub(crate) fn kill9(&mut self, name: &str) {
        self.programs.get_mut(name).unwrap().kill9();
    }

    pub(crate) fn program(&mut self, name: &str) -> &mut Program {
        self.programs.get_mut(name).unwrap()
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports[name]
    }

    /// `http://127.0.0.1:port` of a service.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[name])
    }

    /// Registers a merchant, once the merchant service is ready, and waits for the gateway.
    pub(crate) async fn merchant(&self) -> Merchant {
        for name in self.programs.keys() {
            let ready = self.url(name) + "/health/ready";
            let deadline = Instant::now() + Duration::from_secs(60);
            while !self.http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
                assert!(Instant::now() < deadline, "{name} is not ready");
                sleep(Duration::from_millis(20)).await;
            }
        }
        let url = self.url("merchant-service") + "/api/v1/merchants/register";
        let body = json!({"name": "Tea Shop", "email": "tea@example.com"});
        let made: Value = self.http.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        let keys = made["api_keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["mode"] == "test").unwrap();
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        let http = self.http.clone();
        Merchant {
            http,
            gateway: self.url("payment-gateway"),
            api_key: text("api_key"),
            secret: text("api_secret"),
        }
    }
}

pub(crate) struct Merchant {
    http: reqwest::Client,
    gateway: String,
    api_key: String,
    secret: String,
}

impl Merchant {
    /// A payment of an order by a card, in a trace.
    pub(crate) fn pay(&self, order: &str, card: &str, trace: &str) -> reqwest::RequestBuilder {
        let path = "/api/v1/payments";
        let body =
            json!({"order_no": order, "amount": 100, "currency": "EUR", "payment_method": card}).to_string();
        let (now, nonce, secret) = (chrono::Utc::now().timestamp(), random_text(24), self.secret.as_bytes());
        let signed = SignedBy::sign(&self.api_key, secret, &Method::POST, path, now, &nonce, body.as_bytes());
        let call = self.http.post(format!("{}{path}", self.gateway)).body(body);
        let call = signed.headers().into_iter().fold(call, |call, (name, value)| call.header(name, value));
        let call = call.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
        call.header("content-type", "application/json").header("idempotency-key", order)
    }
}
