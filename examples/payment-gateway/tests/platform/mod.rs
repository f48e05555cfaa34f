//! The platform around the gateway, in the test process: merchant service, order service and channel on free
//! ports with databases of their own, a gate in front of the channel, proxies by which the order service and the
//! channel can be away, and a merchant's signing client.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use http::Method;
use serde_json::{Value, json};
use service_shell::signature::SignedBy;
use service_shell::{HttpTimeouts, Pool, Settings, database, random_text};
use tokio::sync::watch;

/// A database of one service.
pub(crate) struct Place {
    url: String,
    #[cfg(feature = "postgres")]
    _database: testkit::TestDatabase,
}

impl Place {
    #[cfg_attr(feature = "postgres", expect(unused_variables, reason = "a database has no folder"))]
    fn new(folder: &testkit::TempDir, name: &str) -> Place {
        #[cfg(feature = "postgres")]
        let database = testkit::Postgres::shared().database();
        #[cfg(feature = "postgres")]
        let url = database.url().to_owned();
        #[cfg(not(feature = "postgres"))]
        let url = format!("sqlite:{}", folder.path().join(format!("{name}.sqlite3")).display());
        Place {
            url,
            #[cfg(feature = "postgres")]
            _database: database,
        }
    }

    pub(crate) async fn open(&self) -> Pool {
        let vars = [("DATABASE_URL", self.url.as_str())];
        database::open(&Settings::from_vars("test", 0, vars).unwrap()).await.unwrap()
    }
}

/// Holds every charge back while it is closed, or its answer while it is silent, and counts those that came.
#[derive(Clone)]
pub(crate) struct Gate {
    closed: Arc<watch::Sender<bool>>,
    arrived: Arc<watch::Sender<u32>>,
    silent: Arc<watch::Sender<bool>>,
    answered: Arc<watch::Sender<u32>>,
}

impl Gate {
    fn open() -> Gate {
        Gate {
            closed: Arc::new(watch::Sender::new(false)),
            arrived: Arc::new(watch::Sender::new(0)),
            silent: Arc::new(watch::Sender::new(false)),
            answered: Arc::new(watch::Sender::new(0)),
        }
    }

    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn reopen(&self) {
        self.closed.send_replace(false);
    }

    /// Returns when so many charges have come to the gate.
    pub(crate) async fn arrived(&self, count: u32) {
        self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await.unwrap();
    }

    /// From now on charges take effect, and their answers are kept back.
    pub(crate) fn keep_answers(&self) {
        self.silent.send_replace(true);
    }

    /// Answers are no longer kept back.
    pub(crate) fn answer_again(&self) {
        self.silent.send_replace(false);
    }

    /// Returns when so many charges have taken effect or were refused.
    pub(crate) async fn answered(&self, count: u32) {
        self.answered.subscribe().wait_for(|answered| *answered >= count).await.unwrap();
    }

    async fn pass(self, request: Request, next: Next) -> axum::response::Response {
        if request.method() != Method::POST || request.uri().path() != "/api/v1/channel/payments" {
            return next.run(request).await;
        }
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.closed.subscribe().wait_for(|closed| !closed).await.unwrap();
        let answer = next.run(request).await;
        self.answered.send_modify(|answered| *answered += 1);
        self.silent.subscribe().wait_for(|silent| !silent).await.unwrap();
        answer
    }
}

/// Everything but the gateway.
pub(crate) struct Platform {
    pub(crate) gate: Gate,
    /// In front of the order service.
    pub(crate) to_orders: testkit::Proxy,
    /// In front of the channel.
    pub(crate) to_channel: testkit::Proxy,
    pub(crate) channel: Place,
    pub(crate) orders: Place,
    pub(crate) gateway: Place,
    pub(crate) peers: Vec<(&'static str, String)>,
    _merchants: Place,
    _folder: testkit::TempDir,
}

impl Platform {
    /// Starts the three services; the channel's delays are short.
    pub(crate) async fn start() -> Platform {
        Platform::start_with(&[]).await
    }

    /// The same with more variables for the channel.
    pub(crate) async fn start_with(channel_variables: &[(&str, &str)]) -> Platform {
        testkit::time_limit();
        let folder = testkit::temp_dir();
        let gate = Gate::open();
        let [merchants, orders, channel, gateway] =
            ["merchants", "orders", "channel", "gateway"].map(|name| Place::new(&folder, name));
        let settings = |name: &'static str, place: &Place| {
            let data = folder.path().display().to_string();
            let vars = [
                ("DATABASE_URL", place.url.as_str()),
                ("DATA_DIR", data.as_str()),
                ("CHANNEL_SLOW_MS", "150"),
                ("CHANNEL_HANG_MS", "600000"),
            ];
            let vars = vars.into_iter().chain(channel_variables.iter().copied());
            Settings::from_vars(name, 0, vars).unwrap()
        };
        let (router, _) = merchant_service::start(settings("merchant-service", &merchants)).await.unwrap();
        let merchant_url = serve(router).await;
        let (router, _) = order_service::start(settings(order_service::NAME, &orders)).await.unwrap();
        let to_orders = testkit::Proxy::before(listen(router).await);
        let (router, _) = channel_adapter::start(settings(channel_adapter::NAME, &channel)).await.unwrap();
        let held = gate.clone();
        let router = router.layer(from_fn(move |request, next| held.clone().pass(request, next)));
        let to_channel = testkit::Proxy::before(listen(router).await);
        let peers = vec![
            ("MERCHANT_SERVICE_URL", merchant_url),
            ("ORDER_SERVICE_URL", format!("http://{}", to_orders.address())),
            ("CHANNEL_ADAPTER_URL", format!("http://{}", to_channel.address())),
        ];
        let (_merchants, _folder) = (merchants, folder);
        Platform { gate, to_orders, to_channel, channel, orders, gateway, peers, _merchants, _folder }
    }

    /// The environment of a gateway in this platform; later entries win.
    pub(crate) fn environment(&self, extra: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let mut vars = self.peers.clone();
        vars.push(("DATABASE_URL", self.gateway.url.clone()));
        vars.extend(extra.iter().map(|(name, value)| (*name, (*value).to_owned())));
        vars
    }

    /// A new merchant with its test key, as a client of the gateway at `base`.
    pub(crate) async fn merchant(&self, base: &str) -> Merchant {
        let [test, _production] = self.merchant_in_both_modes(base).await;
        test
    }

    /// A new merchant with its test key and with its production key.
    pub(crate) async fn merchant_in_both_modes(&self, base: &str) -> [Merchant; 2] {
        let http = service_shell::http_client(HttpTimeouts::default()).unwrap();
        let body = json!({"name": "Tea Shop", "email": format!("{}@example.com", random_text(12))});
        let url = format!("{}/api/v1/merchants/register", self.peers[0].1);
        let reply = http.post(url).json(&body).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 201);
        let made: Value = reply.json().await.unwrap();
        let keys = made["api_keys"].as_array().unwrap();
        let of = |mode: &str| {
            let key = keys.iter().find(|key| key["mode"] == mode).unwrap();
            let text = |name: &str| key[name].as_str().unwrap().to_owned();
            (text("api_key"), text("api_secret"))
        };
        ["test", "production"].map(|mode| {
            let (api_key, secret) = of(mode);
            Merchant { http: http.clone(), base: base.to_owned(), api_key, secret }
        })
    }
}

/// Serves a router on a free port of this machine.
pub(crate) async fn serve(router: Router) -> String {
    format!("http://{}", listen(router).await)
}

async fn listen(router: Router) -> SocketAddr {
    listen_on(0, router).await
}

pub(crate) async fn listen_on(port: u16, router: Router) -> SocketAddr {
    let listener = service_shell::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(service_shell::serve(listener, router, std::future::pending()));
    address
}

/// A merchant's client: signs every request.
#[derive(Clone)]
pub(crate) struct Merchant {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) api_key: String,
    pub(crate) secret: String,
}

/// An answer of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) media_type: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Merchant {
    /// A request with this merchant's signature.
    pub(crate) fn signed(&self, method: Method, path: &str, body: &[u8]) -> reqwest::RequestBuilder {
        let (now, nonce) = (chrono::Utc::now().timestamp(), random_text(24));
        let signed = SignedBy::sign(&self.api_key, self.secret.as_bytes(), &method, path, now, &nonce, body);
        let call = self.http.request(method, format!("{}{path}", self.base)).body(body.to_vec());
        signed.headers().into_iter().fold(call, |call, (name, value)| call.header(name, value))
    }

    /// `POST /api/v1/payments`; an error when no answer came.
    pub(crate) async fn try_pay(&self, key: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        self.post("/api/v1/payments", key, body).await
    }

    /// A signed `POST` with a key.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let body = body.to_string();
        let call = self.signed(Method::POST, path, body.as_bytes());
        read(call.header("content-type", "application/json").header("idempotency-key", key)).await
    }

    /// A signed `GET`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        read(self.signed(Method::GET, path, b"")).await
    }
}

pub(crate) async fn read(call: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let reply = call.send().await?;
    let status = reply.status().as_u16();
    let replayed = reply.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
    let media_type = reply.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let media_type = media_type.unwrap_or_default();
    Ok(Answer { status, replayed, media_type, body: reply.text().await? })
}

pub(crate) fn payment(order_no: &str, method: &str) -> Value {
    json!({"order_no": order_no, "amount": 1250, "currency": "USD", "payment_method": method})
}
