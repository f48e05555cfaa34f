//! Calls to other services, and what their answers prove.
//!
//! Invariant: only an answer in which the peer itself says no counts as a refusal. A lost answer, a broken
//! one, or one we do not understand is a [`CallError`]: the call may have taken effect.

use serde_json::Value;
use service_shell::{CallError, Id, MERCHANT_HEADER, MODE_HEADER, Reply};

/// One service of the platform, called on behalf of a merchant.
#[derive(Clone, Debug)]
pub(crate) struct Peer(service_shell::Peer);

/// The merchant that a call is about, and the mode of its key. Requests of before modes travelled have none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'a> {
    pub(crate) merchant: Id,
    pub(crate) mode: Option<&'a str>,
}

/// An answer that proves something. Every other one is a [`CallError`].
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a refusal is not a success"]
pub(crate) enum Said {
    /// The peer did it; this is its answer.
    Yes(Value),
    /// The peer did not do it and says why in its own words: the problem's kind and detail.
    No { kind: String, reason: String },
}

impl Peer {
    pub(crate) fn new(peer: service_shell::Peer) -> Peer {
        Peer(peer)
    }

    /// The name of the peer: the provider of the steps that call it.
    pub(crate) fn name(&self) -> &'static str {
        self.0.name()
    }

    /// `POST`, with the key that lets the peer recognise a repetition.
    pub(crate) async fn post(
        &self,
        path: &str,
        whose: Whose<'_>,
        key: &str,
        body: &Value,
    ) -> Result<Said, CallError> {
        self.send(self.0.post(path, key, body), whose).await
    }

    /// `GET`.
    pub(crate) async fn get(&self, path: &str, whose: Whose<'_>) -> Result<Said, CallError> {
        self.send(self.0.get(path), whose).await
    }

    async fn send(&self, call: reqwest::RequestBuilder, whose: Whose<'_>) -> Result<Said, CallError> {
        let call = call.header(MERCHANT_HEADER, whose.merchant.to_string());
        let call = whose.mode.into_iter().fold(call, |call, mode| call.header(MODE_HEADER, mode));
        let reply = self.0.send(call).await?;
        said(reply).map_err(|unclear| self.0.unclear(&unclear))
    }
}

/// Reads what an answer proves; gives the answer back if it proves nothing.
fn said(reply: Reply) -> Result<Said, Reply> {
    if reply.status.is_success() {
        return Ok(Said::Yes(reply.body));
    }
    match reply.kind() {
        Some(kind) if REFUSALS.contains(&(reply.status.as_u16(), kind)) => {
            Ok(Said::No { kind: kind.to_owned(), reason: reply.reason() })
        }
        _ => Err(reply),
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
    use http::StatusCode;
    use service_shell::PROBLEM_TYPES;

    use super::*;

    fn problem(status: u16, kind: &str) -> Result<Said, Reply> {
        let body = serde_json::json!({"type": format!("{PROBLEM_TYPES}{kind}"), "detail": "because"});
        said(Reply { status: StatusCode::from_u16(status).unwrap(), body })
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
            assert!(problem(status, kind).is_err(), "{status} {kind}");
        }
        let done = Reply { status: StatusCode::CREATED, body: serde_json::json!({}) };
        assert_eq!(said(done), Ok(Said::Yes(serde_json::json!({}))));
    }
}
