//! The refusals as problem documents (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::config::Refusal;
use crate::{KeyError, Tombstone};

pub(crate) const STATUS_HEADER: HeaderName = HeaderName::from_static("idempotency-status");
pub(crate) const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Where the problem types are described.
const TYPE_BASE: &str = "https://github.com/probity-rs/probity/blob/main/idempotency/docs/problems.md#";
/// The longest a client is told to wait before it asks again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Everything the layer answers on its own.
#[derive(Debug)]
pub(crate) enum Problem {
    KeyMissing,
    KeyMalformed(KeyError),
    KeyRepeated,
    Refused(Refusal),
    BodyTooLarge(usize),
    BodyIncomplete,
    StoreUnavailable,
    Mismatch,
    InFlight(Duration),
    NotReplayable(Tombstone),
    OutcomeUnknown,
}

impl Problem {
    const fn slug(&self) -> &'static str {
        match self {
            Self::KeyMissing => "key-missing",
            Self::KeyMalformed(_) | Self::KeyRepeated => "key-malformed",
            Self::Refused(_) => "refused",
            Self::BodyTooLarge(_) => "body-too-large",
            Self::BodyIncomplete => "body-incomplete",
            Self::StoreUnavailable => "store-unavailable",
            Self::Mismatch => "mismatch",
            Self::InFlight(_) => "in-flight",
            Self::NotReplayable(_) => "not-replayable",
            Self::OutcomeUnknown => "outcome-unknown",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::KeyMissing | Self::KeyMalformed(_) | Self::KeyRepeated | Self::BodyIncomplete => {
                StatusCode::BAD_REQUEST
            }
            Self::Refused(refusal) => refusal.status,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InFlight(_) | Self::NotReplayable(_) | Self::OutcomeUnknown => StatusCode::CONFLICT,
        }
    }

    const fn title(&self) -> &'static str {
        match self {
            Self::KeyMissing => "Idempotency-Key is missing",
            Self::KeyMalformed(_) | Self::KeyRepeated => "Idempotency-Key is malformed",
            Self::Refused(_) => "No scope for this caller",
            Self::BodyTooLarge(_) => "Request body is too large",
            Self::BodyIncomplete => "Request body is incomplete",
            Self::StoreUnavailable => "Idempotency is unavailable",
            Self::Mismatch => "Idempotency-Key was used for another request",
            Self::InFlight(_) => "The first request is still running",
            Self::NotReplayable(_) => "The first answer cannot be replayed",
            Self::OutcomeUnknown => "The outcome of the first request is unknown",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::KeyMissing => {
                "send an Idempotency-Key header: one unique value per intended effect, the same on every retry".into()
            }
            Self::KeyMalformed(reason) => format!("the Idempotency-Key cannot be used: {reason}"),
            Self::KeyRepeated => "send exactly one Idempotency-Key header".into(),
            Self::Refused(refusal) => refusal.detail.clone(),
            Self::BodyTooLarge(cap) => format!("send at most {cap} bytes; nothing was done"),
            Self::BodyIncomplete => {
                "the body ended early or did not match its Content-Length; nothing was done".into()
            }
            Self::StoreUnavailable => "nothing was done; send the same request with the same key again".into(),
            Self::Mismatch => {
                "this key belongs to a request with another method, path, content type or body; use a new key".into()
            }
            Self::InFlight(_) => "wait, then send the same request with the same key again".into(),
            Self::NotReplayable(tombstone) => format!(
                "the request was executed and answered with status {}, but the answer was not kept ({}); look the \
                 result up, it will not run again",
                tombstone.status,
                tombstone.reason.as_str(),
            ),
            Self::OutcomeUnknown => {
                "the request may have taken effect; it will not run again until that is settled. Do not send it with \
                 a new key"
                    .into()
            }
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::InFlight(remaining) => Some(*remaining),
            Self::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    pub(crate) const fn idempotency_status(&self) -> &'static str {
        match self {
            Self::InFlight(_) => "in-flight",
            Self::Mismatch => "mismatch",
            Self::NotReplayable(_) => "not-replayable",
            Self::OutcomeUnknown => "indeterminate",
            _ => "refused",
        }
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut document = serde_json::json!({
            "type": format!("{TYPE_BASE}{}", self.slug()),
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.detail(),
        });
        if let Self::NotReplayable(tombstone) = &self {
            document["original-status"] = tombstone.status.into();
        }
        let mut response = Response::new(Bytes::from(document.to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(STATUS_HEADER, HeaderValue::from_static(self.idempotency_status()));
        if let Some(wait) = self.retry_after() {
            let seconds = wait.min(RETRY_AFTER_MAX).as_millis().div_ceil(1000).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(1)));
        }
        if let Self::NotReplayable(Tombstone { location: Some(location), .. }) = &self
            && let Ok(location) = HeaderValue::from_maybe_shared(location.clone())
        {
            headers.insert(LOCATION, location);
        }
        response
    }
}
