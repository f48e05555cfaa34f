//! Authentication: merchants sign each request, and the merchant service says whose signature it is.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use service_shell::signature::{SignedBy, body_sha256};
use service_shell::{BODY_LIMIT, Id, Problem, ServiceToken, traced};

/// The merchant whose signature was verified; in the extensions of every signed request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Merchant {
    #[serde(rename = "merchant_id")]
    pub(crate) id: Id,
    /// `test` or `production`, from the key.
    pub(crate) mode: String,
}

/// Asks the merchant service. Without its answer no request is let in.
#[derive(Clone, Debug)]
pub(crate) struct Gatekeeper {
    pub(crate) client: reqwest::Client,
    pub(crate) merchant_service: String,
    pub(crate) token: ServiceToken,
}

/// Lets a request through if its signature is a merchant's.
pub(crate) async fn signed(
    State(gatekeeper): State<Gatekeeper>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let signed = SignedBy::from_headers(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Problem::bad_request("the body broke off: send it again"))?;
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string());
    let question = json!({
        "api_key": signed.api_key,
        "timestamp": signed.timestamp,
        "nonce": signed.nonce,
        "signature": signed.signature,
        "method": parts.method.as_str(),
        "path_and_query": parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        "body_sha256": body_sha256(&body),
        "address": address.unwrap_or_else(|| "unknown".to_owned()),
    });
    let merchant = gatekeeper.ask(&question).await?;
    parts.extensions.insert(merchant);
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

impl Gatekeeper {
    async fn ask(&self, question: &serde_json::Value) -> Result<Merchant, Problem> {
        let down = |cause: &dyn std::fmt::Display| Problem::unavailable("the merchant service", cause);
        let call = self.client.post(format!("{}/internal/v1/authenticate", self.merchant_service));
        let reply = traced(call)
            .bearer_auth(self.token.text())
            .json(question)
            .send()
            .await
            .map_err(|error| down(&error.without_url()))?;
        match reply.status() {
            StatusCode::OK => reply.json().await.map_err(|error| down(&error.without_url())),
            StatusCode::UNAUTHORIZED if self.is_let_in().await => Err(Problem::unauthenticated()),
            StatusCode::UNAUTHORIZED => Err(down(&TOKEN_REFUSED)),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = reply.headers().get(header::RETRY_AFTER).cloned();
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too-many-failures",
                    "too many failed signatures with this key from this address: wait, then check the secret",
                );
                Err(match wait {
                    Some(wait) => problem.header(header::RETRY_AFTER, wait),
                    None => problem,
                })
            }
            status => Err(down(&status)),
        }
    }

    /// Returns true if the merchant service knows our own token. It refuses a wrong one in the same words as a wrong
    /// signature, but before it reads the question.
    async fn is_let_in(&self) -> bool {
        let call = self.client.post(format!("{}/internal/v1/authenticate", self.merchant_service));
        let reply = call.bearer_auth(self.token.text()).json(&json!({})).send().await;
        reply
            .is_ok_and(|reply| reply.status().is_client_error() && reply.status() != StatusCode::UNAUTHORIZED)
    }
}

const TOKEN_REFUSED: &str =
    "the merchant service refused our service token: set SERVICE_TOKEN to the same text in both services";
