//! Calls to other services, and what their answers prove.
//!
//! Invariant: only an answer in which the peer itself says no counts as a refusal. A lost answer, a broken
//! one, or one we do not understand is unknown: the call may have taken effect.

use http::StatusCode;
use probity_saga::StepError;
use serde_json::Value;
use service_shell::{Id, MERCHANT_HEADER, ServiceToken};

/// One service of the platform.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    client: reqwest::Client,
    base: String,
    token: ServiceToken,
}

/// What a peer said. Everything it did not say is a [`StepError`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a refusal is not a success"]
pub(crate) enum Said {
    /// It did it; this is its answer.
    Yes(Value),
    /// It did not, and says why in its own words: the problem's kind and detail.
    No { kind: String, reason: String },
}

impl Peer {
    pub(crate) fn new(client: &reqwest::Client, base: &str, token: &ServiceToken) -> Peer {
        Peer { client: client.clone(), base: base.to_owned(), token: token.clone() }
    }

    /// `POST`, with the key that lets the peer recognise a repetition.
    pub(crate) async fn post(
        &self,
        path: &str,
        merchant: Id,
        key: &str,
        body: &Value,
    ) -> Result<Said, StepError> {
        let call = self.client.post(format!("{}{path}", self.base)).header("idempotency-key", key).json(body);
        self.send(call, merchant).await
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str, merchant: Id) -> Result<Said, StepError> {
        self.send(self.client.get(format!("{}{path}", self.base)), merchant).await
    }

    async fn send(&self, call: reqwest::RequestBuilder, merchant: Id) -> Result<Said, StepError> {
        let call = call.bearer_auth(self.token.text()).header(MERCHANT_HEADER, merchant.to_string());
        let reply = match call.send().await {
            Ok(reply) => reply,
            // No connection, so nothing was sent.
            Err(error) if error.is_connect() => {
                return Err(StepError::retryable(format!("no connection to {}", self.base)));
            }
            Err(error) => return Err(error.without_url().into()),
        };
        let status = reply.status();
        let body = reply.bytes().await.map_err(reqwest::Error::without_url)?;
        said(status, &body)
    }
}

/// What an answer proves.
fn said(status: StatusCode, body: &[u8]) -> Result<Said, StepError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| StepError::unknown(format!("answered {status} with a body that is not JSON")))?;
    if status.is_success() {
        return Ok(Said::Yes(body));
    }
    let kind = body["type"].as_str().and_then(|uri| uri.strip_prefix("urn:probity:problem:"));
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    match (status, kind) {
        // Wrong token: a person will fix it, and until then nothing happens there.
        (StatusCode::UNAUTHORIZED, _) => Err(StepError::retryable("our service token was refused")),
        (status, Some(kind)) if REFUSALS.contains(&(status.as_u16(), kind)) => Ok(Said::No {
            kind: kind.to_owned(),
            reason: text("reason").or_else(|| text("detail")).unwrap_or_else(|| kind.to_owned()),
        }),
        (status, kind) => Err(StepError::unknown(format!(
            "answered {status} {}: {}",
            kind.unwrap_or_default(),
            text("detail").unwrap_or_default()
        ))),
    }
}

/// The answers in which a peer says that it did nothing and will not do it under this key.
const REFUSALS: [(u16, &str); 11] = [
    (402, "refused"),
    (404, "never-seen"),
    (404, "not-found"),
    (409, "order-number-taken"),
    (409, "order-cancelled"),
    (409, "order-state"),
    (409, "other-payment"),
    (409, "too-late-to-cancel"),
    (415, "unsupported-media-type"),
    (422, "invalid-field"),
    (400, "bad-json"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, kind: &str) -> Result<Said, StepError> {
        let body = serde_json::json!({"type": format!("urn:probity:problem:{kind}"), "detail": "because"});
        said(StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes())
    }

    #[test]
    fn only_what_a_peer_names_as_its_refusal_is_one() {
        assert!(matches!(problem(402, "refused"), Ok(Said::No { reason, .. }) if reason == "because"));
        assert!(matches!(problem(422, "invalid-field"), Ok(Said::No { .. })));
        for (status, kind) in [
            (409, "in-flight"),
            (422, "key-reused"),
            (500, "internal"),
            (503, "unavailable"),
            (404, "no-such-route"),
        ] {
            assert!(matches!(problem(status, kind), Err(StepError::Unknown(_))), "{status} {kind}");
        }
        assert!(matches!(problem(401, "authentication-failed"), Err(StepError::Retryable(_))));
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_unknown_whatever_its_status() {
        for status in [200, 201, 402, 502] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(matches!(said(status, b"<html>"), Err(StepError::Unknown(_))), "{status}");
        }
        assert_eq!(said(StatusCode::CREATED, b"{}").unwrap(), Said::Yes(serde_json::json!({})));
    }
}
