//! The refusals, as problem documents (RFC 9457) or as the service renders them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::passage::{self, Passage};
use super::scope::Refusal;
use super::verdict::Verdict;
use crate::core::key::KeyError;
use crate::core::recording::Tombstone;

pub(crate) const STATUS_HEADER: HeaderName = HeaderName::from_static("idempotency-status");
pub(crate) const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The header of the key, unless another is chosen.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The address that describes the problem types, unless the service has an address of its own.
const TYPE_BASE: &str = "https://github.com/probity-rs/probity/blob/main/idempotency/docs/problems.md#";
/// The longest a client is told to wait before it asks again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Everything the layer answers on its own.
#[derive(Debug)]
pub(crate) enum Problem {
    KeyMissing,
    /// Nor is there a key.
    NoRoute,
    KeyMalformed(KeyError),
    KeyRepeated,
    Refused(Refusal),
    BodyTooLarge(usize),
    BodyIncomplete,
    StoreUnavailable,
    /// The claim of an outer layer could not be marked.
    Unmarked,
    Mismatch,
    InFlight(Duration),
    NotReplayable(Tombstone),
    OutcomeUnknown,
}

impl Problem {
    const fn slug(&self) -> &'static str {
        match self {
            Self::KeyMissing => "key-missing",
            Self::NoRoute => "no-route",
            Self::KeyMalformed(_) | Self::KeyRepeated => "key-malformed",
            Self::Refused(_) => "refused",
            Self::BodyTooLarge(_) => "body-too-large",
            Self::BodyIncomplete => "body-incomplete",
            Self::StoreUnavailable | Self::Unmarked => "store-unavailable",
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
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Refused(refusal) => refusal.status,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::StoreUnavailable | Self::Unmarked => StatusCode::SERVICE_UNAVAILABLE,
            Self::Mismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InFlight(_) | Self::NotReplayable(_) | Self::OutcomeUnknown => StatusCode::CONFLICT,
        }
    }

    fn title(&self, key: &str) -> String {
        match self {
            Self::KeyMissing => format!("{key} is missing"),
            Self::NoRoute => "No route for this path".into(),
            Self::KeyMalformed(_) | Self::KeyRepeated => format!("{key} is malformed"),
            Self::Refused(_) => "No scope for this caller".into(),
            Self::BodyTooLarge(_) => "Request body is too large".into(),
            Self::BodyIncomplete => "Request body is incomplete".into(),
            Self::StoreUnavailable | Self::Unmarked => "Idempotency is unavailable".into(),
            Self::Mismatch => format!("{key} was used for another request"),
            Self::InFlight(_) => "The first request is still running".into(),
            Self::NotReplayable(_) => "The first answer cannot be replayed".into(),
            Self::OutcomeUnknown => "The outcome of the first request is unknown".into(),
        }
    }

    fn detail(&self, key: &str) -> String {
        match self {
            Self::KeyMissing => {
                format!("send the header {key}: one unique value per intended effect, the same on every retry")
            }
            Self::NoRoute => format!("no route matches this path, and without {key} nothing else is tried"),
            Self::KeyMalformed(reason) => format!("the value of {key} cannot be used: {reason}"),
            Self::KeyRepeated => format!("send the header {key} exactly once"),
            Self::Refused(refusal) => refusal.detail.clone(),
            Self::BodyTooLarge(cap) => format!("send at most {cap} bytes; nothing was done"),
            Self::BodyIncomplete => {
                "the body ended early or did not match its Content-Length; nothing was done".into()
            }
            Self::StoreUnavailable | Self::Unmarked => "nothing was done; send the same request with the same key again".into(),
            Self::Mismatch => {
                "this key belongs to another request: method, path, content type or body differ; use a new key".into()
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
            Self::StoreUnavailable | Self::Unmarked => Some(Duration::from_secs(1)),
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

    fn details(&self, settings: &Refusals) -> ProblemDetails {
        let key = settings.key_name();
        let tombstone = match self {
            Self::NotReplayable(tombstone) => Some(tombstone),
            _ => None,
        };
        let seconds = |wait: Duration| wait.min(RETRY_AFTER_MAX).as_millis().div_ceil(1000).max(1);
        ProblemDetails {
            name: self.slug(),
            type_uri: format!("{}{}", settings.base, self.slug()),
            title: self.title(key),
            status: self.status(),
            detail: self.detail(key),
            retry_after: self.retry_after().map(|wait| u64::try_from(seconds(wait)).unwrap_or(1)),
            original_status: tombstone.map(|tombstone| tombstone.status),
            location: tombstone
                .and_then(|tombstone| HeaderValue::from_maybe_shared(tombstone.location.clone()?).ok()),
        }
    }
}

/// A refusal of the layer: what a renderer makes an answer of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProblemDetails {
    /// The name of the kind of problem, as [the guide](crate::guide::problems) lists them: `key-missing`, `in-flight`, …
    pub name: &'static str,
    /// The URI of that kind.
    pub type_uri: String,
    /// A sentence about that kind.
    pub title: String,
    /// The status that says it best.
    pub status: StatusCode,
    /// A sentence that tells the client what to do.
    pub detail: String,
    /// After how many seconds the client may ask again.
    pub retry_after: Option<u64>,
    /// The status of the first answer, where that was not kept.
    pub original_status: Option<u16>,
    /// The `Location` of the first answer, where that was not kept.
    pub location: Option<HeaderValue>,
}

impl ProblemDetails {
    /// The problem document that the layer answers with if it is not told how to render refusals.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let mut document = serde_json::json!({
            "type": self.type_uri,
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(status) = self.original_status {
            document["original-status"] = status.into();
        }
        let mut response = Response::new(Bytes::from(document.to_string()));
        *response.status_mut() = self.status;
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, problem);
        response
    }
}

/// Renders a refusal.
pub(crate) type RenderFn = dyn Fn(&ProblemDetails) -> Response<Bytes> + Send + Sync;

/// The settings by which a layer refuses.
#[derive(Clone)]
pub(crate) struct Refusals {
    pub(crate) key_header: HeaderName,
    pub(crate) base: Cow<'static, str>,
    pub(crate) render: Option<Arc<RenderFn>>,
}

impl Refusals {
    /// The name of the key's header, as people write it.
    fn key_name(&self) -> &str {
        if self.key_header == KEY_HEADER { "Idempotency-Key" } else { self.key_header.as_str() }
    }

    /// The answer to a request that is refused. The headers that clients rely on are set however it is rendered.
    ///
    /// Tells the outer layer, from which the request `came`, that it reached no handler.
    pub(crate) fn response(&self, problem: &Problem, came: Option<Passage>) -> Response<Bytes> {
        let details = problem.details(self);
        let mut response =
            self.render.as_ref().map_or_else(|| details.to_response(), |render| render(&details));
        if matches!(problem, Problem::Unmarked) {
            // The mark may be in the store: to free the key would be to run what may have been announced.
            response.extensions_mut().insert(Verdict::Unknown);
        } else {
            passage::tell_not_reached(&mut response, came);
        }
        let headers = response.headers_mut();
        headers.insert(STATUS_HEADER, HeaderValue::from_static(problem.idempotency_status()));
        if let Some(seconds) = details.retry_after {
            headers.entry(RETRY_AFTER).or_insert_with(|| seconds.into());
        }
        if let Some(location) = details.location {
            headers.entry(LOCATION).or_insert(location);
        }
        response
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self { key_header: KEY_HEADER, base: Cow::Borrowed(TYPE_BASE), render: None }
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("key_header", &self.key_header)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}
