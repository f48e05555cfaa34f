//! The caller of a route that merchants and operators share.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, header};
use service_shell::signature::{SignedBy, body_sha256};
use service_shell::{BODY_LIMIT, Id, MERCHANT_HEADER, MerchantId, Problem, Role};

use crate::app::AppState;
use crate::authenticate::{AuthenticateRequest, Authenticated};
use crate::domain::{ApiKey, Mode};

/// Set by [`identify`], read by handlers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// Bears an operator's token; `X-Merchant-Id` may say on whose behalf.
    Operator(Option<MerchantId>),
    /// Signed with a key of this merchant.
    Merchant(Authenticated),
}

pub(crate) type Called = Extension<Caller>;

impl Caller {
    /// The merchant whose data the call is about.
    pub(crate) fn merchant(self) -> Result<Id, Problem> {
        match self {
            Caller::Merchant(who) => Ok(who.merchant_id),
            Caller::Operator(Some(MerchantId(id))) => Ok(id),
            Caller::Operator(None) => {
                Err(Problem::bad_request(format!("an operator says whose keys: send {MERCHANT_HEADER}")))
            }
        }
    }

    /// Returns true if the caller may know that this merchant exists.
    pub(crate) fn sees(self, merchant: Id) -> bool {
        match self {
            Caller::Merchant(who) => who.merchant_id == merchant,
            Caller::Operator(_) => true,
        }
    }

    /// Returns true if the caller may know of keys of this mode: a test key knows of no production keys.
    pub(crate) fn sees_mode(self, mode: Mode) -> bool {
        !matches!((self, mode), (Caller::Merchant(Authenticated { mode: Mode::Test, .. }), Mode::Production))
    }

    /// A leaked test key must not become a production key.
    pub(crate) fn may_add(self, mode: Mode) -> Result<(), Problem> {
        if self.sees_mode(mode) {
            return Ok(());
        }
        Err(Problem::new(
            http::StatusCode::FORBIDDEN,
            "production-key-needed",
            "production keys are managed with a production key: sign with one",
        ))
    }

    /// The key, if the caller may see and manage it.
    pub(crate) fn own(self, key: Option<ApiKey>) -> Result<ApiKey, Problem> {
        key.filter(|key| self.sees(key.merchant_id) && self.sees_mode(key.mode))
            .ok_or_else(|| Problem::not_found("API key"))
    }
}

/// Lets in an operator's bearer or a merchant's signature, nothing else.
pub(crate) async fn identify(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if parts.headers.contains_key(header::AUTHORIZATION) {
        let role = if parts.method == Method::GET { Role::See } else { Role::Act };
        let operator = state.operators.authenticate(&parts.headers)?;
        operator.require(role)?;
        if role == Role::Act {
            tracing::info!(operator = operator.name(), method = %parts.method, path = parts.uri.path(), "an operator acts");
        }
        let behalf = parts.headers.contains_key(MERCHANT_HEADER);
        let merchant = behalf.then(|| MerchantId::from_headers(&parts.headers)).transpose()?;
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(Caller::Operator(merchant));
        return Ok(next.run(request).await);
    }
    let signed = SignedBy::from_headers(&parts.headers)?;
    let bytes = axum::body::to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Problem::bad_request("the body broke off: send it again"))?;
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let claim = AuthenticateRequest {
        api_key: signed.api_key,
        timestamp: signed.timestamp,
        nonce: signed.nonce,
        signature: signed.signature,
        method: parts.method.as_str().to_owned(),
        path_and_query: path_and_query.to_owned(),
        body_sha256: body_sha256(&bytes),
        address: peer.ip().to_string(),
    };
    let who = state.authenticator.authenticate(&claim).await?;
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request.extensions_mut().insert(Caller::Merchant(who));
    Ok(next.run(request).await)
}
