//! The service on a real listener and a real database. Which database is decided here and nowhere else:
//! an embedded file, or with `--features postgres` a fresh database of testkit's server.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use service_shell::signature::SignedBy;
use service_shell::{Database, HttpTimeouts, Pool, Settings, database};
use sqlx::Executor;

pub(crate) const OPERATOR: &str = "loopback-only-ann";
pub(crate) const SERVICE: &str = "service-of-the-tests";

pub(crate) struct Platform {
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    pub(crate) pool: Pool,
    pub(crate) settings: Settings,
    _place: Place,
}

struct Place {
    folder: testkit::TempDir,
    #[cfg(feature = "postgres")]
    database: testkit::TestDatabase,
}

impl Place {
    fn new() -> Place {
        Place {
            folder: testkit::temp_dir(),
            #[cfg(feature = "postgres")]
            database: testkit::Postgres::shared().database(),
        }
    }

    fn settings(&self) -> Settings {
        let vars = [
            ("DATA_DIR", self.folder.path().to_str().unwrap()),
            ("SERVICE_TOKEN", SERVICE),
            #[cfg(feature = "postgres")]
            ("DATABASE_URL", self.database.url()),
        ];
        Settings::from_vars("merchant-service", 0, vars).unwrap()
    }
}

/// A merchant as the registration answered.
pub(crate) struct Registered {
    pub(crate) id: String,
    pub(crate) keys: Vec<Value>,
}

impl Registered {
    pub(crate) fn key(&self, mode: &str) -> &Value {
        self.keys.iter().find(|key| key["mode"] == mode).unwrap()
    }
}

impl Platform {
    pub(crate) async fn start() -> Platform {
        let place = Place::new();
        let settings = place.settings();
        let base = serve(settings.clone()).await;
        let pool = database::open(&settings).await.unwrap();
        let client = service_shell::http_client(HttpTimeouts::default()).unwrap();
        Platform { base, client, pool, settings, _place: place }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(self.url(path)).json(body).send().await.unwrap()
    }

    pub(crate) async fn register(&self) -> Registered {
        let email = format!("shop-{}@example.com", unique());
        let reply = self.post("/api/v1/merchants/register", &json!({"name": "Shop", "email": email})).await;
        assert_eq!(reply.status(), 201);
        let body: Value = reply.json().await.unwrap();
        let id = body["merchant"]["id"].as_str().unwrap().to_owned();
        Registered { id, keys: body["api_keys"].as_array().unwrap().clone() }
    }

    pub(crate) fn operator(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(OPERATOR)
    }

    /// A request signed with `key`, now, with a nonce of its own.
    pub(crate) fn signed(&self, key: &Value, method: Method, path: &str, body: &str) -> RequestBuilder {
        let signed = sign(key, &method, path, &format!("nonce-{}", unique()), body);
        self.with(&signed, method, path, body)
    }

    /// A request with these headers, whatever they were made for.
    pub(crate) fn with(&self, signed: &SignedBy, method: Method, path: &str, body: &str) -> RequestBuilder {
        let mut request = self.client.request(method, self.url(path));
        for (name, value) in signed.headers() {
            request = request.header(name, value);
        }
        if body.is_empty() {
            request
        } else {
            request.header("content-type", "application/json").body(body.to_owned())
        }
    }

    /// One number of the database, such as a count.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        number(&self.pool, sql).await
    }
}

async fn number(pool: impl Executor<'_, Database = Database>, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Serves on a free port until the test ends.
pub(crate) async fn serve(settings: Settings) -> String {
    let listener = service_shell::bind(settings.address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (router, drain) = merchant_service::start(settings).await.unwrap();
    tokio::spawn(async move {
        service_shell::serve(listener, router, std::future::pending()).await.unwrap();
        drain.run().await;
    });
    format!("http://{address}")
}

pub(crate) fn sign(key: &Value, method: &Method, path: &str, nonce: &str, body: &str) -> SignedBy {
    sign_at(key, method, path, nonce, body, chrono::Utc::now().timestamp())
}

pub(crate) fn sign_at(
    key: &Value,
    method: &Method,
    path: &str,
    nonce: &str,
    body: &str,
    at: i64,
) -> SignedBy {
    let (name, secret) = (key["api_key"].as_str().unwrap(), key["api_secret"].as_str().unwrap());
    SignedBy::sign(name, secret.as_bytes(), method, path, at, nonce, body.as_bytes())
}

pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Asserts the shape of every error, and returns it.
pub(crate) async fn problem(reply: Response, status: u16) -> Value {
    assert_eq!(reply.headers()["content-type"], "application/problem+json");
    assert_eq!(reply.status().as_u16(), status, "{}", reply.text().await.unwrap());
    let body: Value = reply.json().await.unwrap();
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}
