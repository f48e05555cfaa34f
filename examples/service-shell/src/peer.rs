//! Calls to another service, and what is known when its answer does not come.
//!
//! Invariant: a [`CallError`] never says more than is known. Only [`CallError::nothing_was_sent`] proves that a call
//! had no effect, and it speaks of that one call: what the caller did before it still stands. In a saga step `?`
//! therefore makes every one of these errors an unknown outcome; a step whose first effect this call would have been
//! says so by [`only_effect`](crate::only_effect).

use http::StatusCode;
use serde_json::Value;
use tracing::Instrument as _;

use crate::{PROBLEM_TYPES, ServiceToken, traced};

/// A client of another service, with the token by which that service knows us.
#[derive(Clone, Debug)]
pub struct Peer {
    client: reqwest::Client,
    name: &'static str,
    base: String,
    token: ServiceToken,
}

/// The answer of a peer, whatever its status.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "an answer may be a refusal"]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, which is always JSON.
    pub body: Value,
}

/// The reasons for which the answer of a peer is not known.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection was made, so nothing was sent.
    #[error("no connection to the {peer} at {base}: check that it runs and that its address is right")]
    NotConnected {
        /// The peer.
        peer: &'static str,
        /// The address at which it should be.
        base: String,
        /// The error of the connection.
        #[source]
        source: reqwest::Error,
    },
    /// The peer refused our service token before it read the request.
    #[error("the {peer} refused our service token: set SERVICE_TOKEN to the same text in both services")]
    TokenRefused {
        /// The peer.
        peer: &'static str,
    },
    /// The request may have arrived, and its answer did not.
    #[error("the {peer} was called, but its answer did not come")]
    NoAnswer {
        /// The peer.
        peer: &'static str,
        /// The error of the call.
        #[source]
        source: reqwest::Error,
    },
    /// The answer cannot be understood.
    #[error("the {peer} answered {status}, which this service does not understand: {answer}")]
    Unclear {
        /// The peer.
        peer: &'static str,
        /// The HTTP status.
        status: StatusCode,
        /// The kind and the detail of its problem, or the fault of its body.
        answer: String,
    },
}

impl CallError {
    /// The name of the peer that was called, as in [`Peer::name`].
    #[must_use]
    pub fn peer(&self) -> &'static str {
        match self {
            CallError::NotConnected { peer, .. }
            | CallError::TokenRefused { peer }
            | CallError::NoAnswer { peer, .. }
            | CallError::Unclear { peer, .. } => peer,
        }
    }

    /// Returns true if it is proven that this call had no effect.
    #[must_use]
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, CallError::NotConnected { .. } | CallError::TokenRefused { .. })
    }
}

impl Peer {
    /// Makes the client of a peer that is called `name`, as in "order service", in errors and in the policies of steps.
    pub fn new(client: &reqwest::Client, name: &'static str, base: &str, token: &ServiceToken) -> Peer {
        Peer { client: client.clone(), name, base: base.to_owned(), token: token.clone() }
    }

    /// The name of the peer: the provider of the steps that call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Begins a `GET` of a path.
    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    /// Begins a `POST`, with the key by which the peer recognises a repetition.
    pub fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).header("idempotency-key", key).json(body)
    }

    /// Sends a call and reads its answer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome of the call unknown.
    ///
    /// # Errors
    /// [`CallError`] when no answer came, or one that is not JSON.
    pub async fn send(&self, call: reqwest::RequestBuilder) -> Result<Reply, CallError> {
        let span = tracing::info_span!("call", otel.kind = "client", peer = self.name);
        async { self.answer(traced(call)).await }.instrument(span).await
    }

    async fn answer(&self, call: reqwest::RequestBuilder) -> Result<Reply, CallError> {
        let peer = self.name;
        let no_answer = |error: reqwest::Error| CallError::NoAnswer { peer, source: error.without_url() };
        let reply = match call.bearer_auth(self.token.text()).send().await {
            Ok(reply) => reply,
            Err(error) if error.is_connect() => {
                let source = error.without_url();
                return Err(CallError::NotConnected { peer, base: self.base.clone(), source });
            }
            Err(error) => return Err(no_answer(error)),
        };
        let status = reply.status();
        let body = reply.bytes().await.map_err(no_answer)?;
        self.read(status, &body)
    }

    fn read(&self, status: StatusCode, body: &[u8]) -> Result<Reply, CallError> {
        let peer = self.name;
        let body = serde_json::from_slice(body).map_err(|error| CallError::Unclear {
            peer,
            status,
            answer: format!("its body is not JSON ({error})"),
        })?;
        let reply = Reply { status, body };
        if status == StatusCode::UNAUTHORIZED && reply.kind() == Some("authentication-failed") {
            return Err(CallError::TokenRefused { peer });
        }
        Ok(reply)
    }

    /// The error for an answer whose meaning the caller does not know.
    #[must_use]
    pub fn unclear(&self, reply: &Reply) -> CallError {
        let kind = reply.kind().unwrap_or_default();
        let detail = reply.body["detail"].as_str().unwrap_or_default();
        CallError::Unclear {
            peer: self.name,
            status: reply.status,
            answer: format!("{kind} {detail}").trim().to_owned(),
        }
    }
}

impl Reply {
    /// The stable kind of a [`Problem`](crate::Problem), if it is one.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.body["type"].as_str().and_then(|uri| uri.strip_prefix(PROBLEM_TYPES))
    }

    /// The reason of a refusal, in the words of the peer.
    #[must_use]
    pub fn reason(&self) -> String {
        let said = self.body["reason"].as_str().or_else(|| self.body["detail"].as_str());
        said.or_else(|| self.kind()).unwrap_or("refused without a reason").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{HttpTimeouts, http_client};

    fn peer(base: &str) -> Peer {
        let timeouts = HttpTimeouts { total: Duration::from_millis(200), ..HttpTimeouts::default() };
        Peer::new(&http_client(timeouts).unwrap(), "bank", base, &ServiceToken::new("0123456789abcdef"))
    }

    async fn call(base: &str) -> CallError {
        let peer = peer(base);
        peer.send(peer.post("/x", "key", &json!({}))).await.expect_err("nobody answers")
    }

    #[tokio::test]
    async fn a_refused_connection_is_proof_and_a_silent_one_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let silent = call(&base).await;
        assert!(matches!(silent, CallError::NoAnswer { .. }) && !silent.nothing_was_sent(), "{silent}");
        drop(listener);
        let refused = call(&base).await;
        assert!(matches!(refused, CallError::NotConnected { .. }) && refused.nothing_was_sent(), "{refused}");
        assert!(std::error::Error::source(&refused).is_some(), "the cause is kept");
    }

    #[test]
    fn an_answer_that_cannot_be_read_proves_nothing_whatever_its_status() {
        for status in [200, 201, 401, 402, 502] {
            let error = peer("").read(StatusCode::from_u16(status).unwrap(), b"<html>").expect_err("no JSON");
            assert!(!error.nothing_was_sent(), "{error}");
        }
    }

    #[test]
    fn only_our_own_problem_says_that_the_token_was_refused() {
        let problem = |kind: &str| json!({"type": format!("{PROBLEM_TYPES}{kind}")}).to_string();
        let read = |kind: &str| peer("").read(StatusCode::UNAUTHORIZED, problem(kind).as_bytes());
        assert!(read("authentication-failed").expect_err("refused").nothing_was_sent());
        assert!(read("something-else").is_ok());
        // Another page's word says nothing.
        let layers = json!({"type": "https://example.com/problems#authentication-failed"}).to_string();
        assert!(peer("").read(StatusCode::UNAUTHORIZED, layers.as_bytes()).is_ok());
    }
}
