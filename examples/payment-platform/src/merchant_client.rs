//! A merchant's program: registers once, then signs and sends.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use service_shell::random_text;
use service_shell::signature::SignedBy;

use crate::story::Failure;

/// A registered merchant with one of its API keys.
#[derive(Clone)]
pub(crate) struct MerchantClient {
    http: reqwest::Client,
    gateway: String,
    api_key: String,
    secret: String,
}

impl std::fmt::Debug for MerchantClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MerchantClient").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// An answer, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, or null.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Shows what a reader of the story needs: the payment and its state, or what the problem says.
    pub(crate) fn summary(&self) -> String {
        let told: Vec<String> = ["payment_no", "status", "failure_reason", "title", "detail"]
            .into_iter()
            .map(|field| self.text(field))
            .filter(|text| !text.is_empty())
            .collect();
        format!("{} bytes: {}", self.body.len(), told.join(", "))
    }

    /// A text field of the body, or nothing.
    pub(crate) fn text(&self, field: &str) -> String {
        self.json().get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

impl MerchantClient {
    pub(crate) fn new(gateway: &str, api_key: String, secret: String) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { http, gateway: gateway.to_owned(), api_key, secret })
    }

    /// The variables by which `examples/clients` pays as this merchant, as a line for a shell.
    pub(crate) fn exports(&self) -> String {
        let Self { gateway, api_key, secret, .. } = self;
        format!("export PROBITY_GATEWAY={gateway} PROBITY_API_KEY={api_key} PROBITY_API_SECRET={secret}")
    }

    /// The signed headers of one request. Each signature is good for one use within two minutes.
    pub(crate) fn headers(&self, method: &Method, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let now = chrono::Utc::now().timestamp();
        let nonce = random_text(24);
        let signed = SignedBy::sign(&self.api_key, self.secret.as_bytes(), method, path, now, &nonce, body);
        signed.headers().iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    /// `POST` with an idempotency key.
    ///
    /// # Errors
    /// When no answer came: the payment may or may not have happened.
    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        let body = body.to_string().into_bytes();
        let mut request = self.http.post(format!("{}{path}", self.gateway)).header("idempotency-key", key);
        for (name, value) in self.headers(&Method::POST, path, &body) {
            request = request.header(name, value);
        }
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        let status = answer.status().as_u16();
        let replayed = answer.headers().get("idempotent-replayed").is_some_and(|value| value == "true");
        Ok(Answer { status, replayed, body: answer.bytes().await?.to_vec() })
    }
}
