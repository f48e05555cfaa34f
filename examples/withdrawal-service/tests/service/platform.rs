//! The service on a real listener and a real database. Which database is decided here and nowhere else:
//! an embedded file, or with `--features postgres` a fresh database of testkit's server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use service_shell::{HttpTimeouts, Id, Operators, Pool, Role, Settings, database};

/// Operators with all roles; `eve` only sees.
const OPERATORS: [&str; 4] = ["ada", "bob", "cyd", "dan"];

/// The token of an operator of the tests.
pub(crate) fn token_of(name: &str) -> String {
    format!("token-of-{name}")
}

fn operators() -> String {
    let mut entries = OPERATORS.map(|name| Operators::entry(name, Role::ALL, &token_of(name))).to_vec();
    entries.push(Operators::entry("eve", &[Role::See], &token_of("eve")));
    entries.join(",")
}

/// The id of no merchant.
pub(crate) const NOWHERE: &str = "0195f000-0000-7000-8000-000000000000";

pub(crate) const SERVICE: &str = "service-of-the-tests";

pub(crate) struct Platform {
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    pub(crate) pool: Pool,
    pub(crate) settings: Settings,
    /// The bank's own ledger.
    pub(crate) ledger: Pool,
    /// In front of the bank.
    pub(crate) to_bank: testkit::Proxy,
    _place: Place,
}

struct Place {
    folder: testkit::TempDir,
    #[cfg(feature = "postgres")]
    database: testkit::TestDatabase,
    #[cfg(feature = "postgres")]
    bank: testkit::TestDatabase,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: testkit::temp_dir(),
            #[cfg(feature = "postgres")]
            database: testkit::Postgres::shared().database(),
            #[cfg(feature = "postgres")]
            bank: testkit::Postgres::shared().database(),
        }
    }

    fn settings(&self, bank: &str, more: &[(&str, &str)]) -> Settings {
        let operators = operators();
        let vars = [
            ("DATA_DIR", self.folder.path().to_str().unwrap()),
            ("SERVICE_TOKEN", SERVICE),
            ("OPERATORS", &operators),
            ("CHANNEL_ADAPTER_URL", bank),
            // Shorter than the bank's silence, and patient enough for a busy machine.
            ("BANK_TIMEOUT_MS", "1000"),
            ("STEP_RETRY_MS", "5"),
            // Stuck after few questions: each of them takes as long as the bank is silent.
            ("STEP_PATIENCE", "4"),
            ("TWO_OPERATORS_FROM", "10"),
            #[cfg(feature = "postgres")]
            ("DATABASE_URL", self.database.url()),
        ];
        Settings::from_vars("withdrawal-service", 0, vars.into_iter().chain(more.iter().copied())).unwrap()
    }

    fn bank(&self) -> Settings {
        let vars = [
            ("DATA_DIR", self.folder.path().to_str().unwrap()),
            ("SERVICE_TOKEN", SERVICE),
            ("CHANNEL_HANG_MS", "1500"),
            #[cfg(feature = "postgres")]
            ("DATABASE_URL", self.bank.url()),
        ];
        Settings::from_vars("channel-adapter", 0, vars).unwrap()
    }
}

impl Platform {
    pub(crate) async fn start() -> Platform {
        let place = Place::new();
        let bank = place.bank();
        let to_bank = testkit::Proxy::before(serve_bank(bank.clone()).await);
        let settings = place.settings(&format!("http://{}", to_bank.address()), &[]);
        let ledger = database::open(&bank).await.unwrap();
        let base = serve(settings.clone()).await;
        let pool = database::open(&settings).await.unwrap();
        let client = service_shell::http_client(HttpTimeouts::default()).unwrap();
        Platform { base, client, pool, settings, ledger, to_bank, _place: place }
    }

    /// A role that may use the tables and create none.
    #[cfg(feature = "postgres")]
    pub(crate) async fn restricted(&self) -> testkit::TestRole {
        let role = self._place.database.role();
        for what in ["ALL TABLES", "ALL SEQUENCES"] {
            let grant = format!("GRANT ALL ON {what} IN SCHEMA public TO {}", role.name());
            sqlx::query(sqlx::AssertSqlSafe(grant)).execute(&self.pool).await.unwrap();
        }
        role
    }

    /// Serves the same database a second time, with more settings.
    pub(crate) async fn serve_with(&self, more: &[(&str, &str)]) -> String {
        serve(self._place.settings(&format!("http://{}", self.to_bank.address()), more)).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// A call of another service on behalf of a merchant, with a key of its own.
    pub(crate) fn call(&self, merchant: Id, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path)).bearer_auth(SERVICE);
        let request =
            request.header("x-merchant-id", merchant.to_string()).header("x-merchant-mode", "production");
        request.header("idempotency-key", key())
    }

    /// A call of another service about balances, which needs neither a merchant's headers nor a key.
    pub(crate) async fn book(&self, path: &str, body: &Value) -> Response {
        let request = self.client.post(self.url(&format!("/api/v1/balances/{path}"))).bearer_auth(SERVICE);
        request.json(body).send().await.unwrap()
    }

    /// Available and frozen, in dollars' cents.
    pub(crate) async fn balance(&self, merchant: Id, mode: &str) -> Option<(i64, i64)> {
        let balances =
            self.get(merchant, &format!("/api/v1/balances?merchant_id={merchant}&mode={mode}")).await;
        let balance = balances["balances"].as_array().unwrap().first()?;
        Some((balance["available"].as_i64().unwrap(), balance["frozen"].as_i64().unwrap()))
    }

    pub(crate) async fn post(&self, merchant: Id, path: &str, body: &Value) -> Response {
        self.call(merchant, Method::POST, path).json(body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, merchant: Id, path: &str) -> Value {
        self.call(merchant, Method::GET, path).send().await.unwrap().json().await.unwrap()
    }

    /// A decision of the operator `ada`.
    pub(crate) async fn decide(&self, withdrawal: &Value, verb: &str, body: &Value) -> Response {
        self.decide_as("ada", withdrawal, verb, body).await
    }

    async fn decide_as(&self, operator: &str, withdrawal: &Value, verb: &str, body: &Value) -> Response {
        let path = format!("/api/v1/withdrawals/{}/{verb}", withdrawal["id"].as_str().unwrap());
        self.operator(operator, Method::POST, &path).json(body).send().await.unwrap()
    }

    /// A call of an operator, with a key of its own.
    pub(crate) fn operator(&self, name: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path)).bearer_auth(token_of(name));
        request.header("idempotency-key", key())
    }

    pub(crate) async fn approve(&self, withdrawal: &Value, operator: &str) -> Response {
        self.decide_as(operator, withdrawal, "approve", &json!({})).await
    }

    /// The saga of a withdrawal as an operator sees it.
    pub(crate) async fn saga(&self, withdrawal: &Value) -> Value {
        self.operator("eve", Method::GET, &saga_of(withdrawal)).send().await.unwrap().json().await.unwrap()
    }

    /// An operator lets a stuck saga try again.
    pub(crate) async fn retry(&self, withdrawal: &Value) -> Response {
        let body =
            json!({"row_version": self.saga(withdrawal).await["row_version"], "reason": "the bank is back"});
        let path = format!("{}/retry", saga_of(withdrawal));
        self.operator("ada", Method::POST, &path).json(&body).send().await.unwrap()
    }

    /// A merchant with one account.
    pub(crate) async fn merchant(&self) -> Id {
        let merchant = Id::new();
        let added = self.post(merchant, "/api/v1/bank-accounts", &account("acct_ok")).await;
        assert_eq!(added.status(), 201);
        merchant
    }

    /// A pending withdrawal of whole dollars.
    pub(crate) async fn withdrawal(&self, merchant: Id, dollars: i64) -> Value {
        let reply = self.post(merchant, "/api/v1/withdrawals", &withdrawal(dollars)).await;
        assert_eq!(reply.status(), 201);
        reply.json().await.unwrap()
    }

    /// One number of the database, such as a count.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// The path of the saga of a withdrawal.
pub(crate) fn saga_of(withdrawal: &Value) -> String {
    format!("/api/v1/sagas/withdrawal/{}", withdrawal["withdrawal_no"].as_str().unwrap())
}

/// Serves on a free port until the test ends.
pub(crate) async fn serve(settings: Settings) -> String {
    let started = withdrawal_service::start(settings.clone()).await.unwrap();
    format!("http://{}", listen(settings, started).await)
}

async fn serve_bank(settings: Settings) -> SocketAddr {
    let started = channel_adapter::start(settings.clone()).await.unwrap();
    listen(settings, started).await
}

async fn listen(settings: Settings, (router, drain): (axum::Router, service_shell::Drain)) -> SocketAddr {
    let listener = service_shell::bind(settings.address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        service_shell::serve(listener, router, std::future::pending()).await.unwrap();
        drain.run().await;
    });
    address
}

pub(crate) fn account(number: &str) -> Value {
    json!({"holder": "Corner Shop", "account": number, "currency": "USD"})
}

/// A change of a merchant's balance of production.
pub(crate) fn entry(merchant: Id, reference: &str, amount: i64) -> Value {
    json!({
        "merchant_id": merchant, "mode": "production", "currency": "USD", "amount": amount, "reference": reference,
    })
}

pub(crate) fn withdrawal(dollars: i64) -> Value {
    json!({"amount": dollars * 100, "currency": "USD", "speed": "normal"})
}

pub(crate) fn key() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Asserts the shape of every error, and returns it.
pub(crate) async fn problem(reply: Response, status: u16) -> Value {
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    assert_eq!(reply.status().as_u16(), status, "{}", reply.text().await.unwrap());
    let body: Value = reply.json().await.unwrap();
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}
