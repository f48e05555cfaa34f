//! Errors as they cross the boundary: RFC 9457, with a `detail` that says what to fix.
//!
//! Invariant: nothing about our insides leaves in a 5xx. The log has the cause; the response has an incident
//! id that finds it there.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The media type of every error response.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The address before the kind in the `type` of a problem: the list of all kinds of the services.
///
/// The idempotency layer has a list of its own at another address, so a kind of the same name is never taken for a
/// service's answer.
pub const PROBLEM_TYPES: &str = "https://github.com/probity-rs/probity/blob/main/examples/problems.md#";

/// A 4xx or 5xx response. Also an `Error`, so that handlers and transactions can return it.
#[derive(Clone, Debug)]
#[must_use = "a problem does nothing until it is returned"]
pub struct Problem(Box<Parts>);

/// Boxed, so that a `Result` that usually succeeds stays small.
#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    members: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with a stable kind (`invalid-amount`); `detail` says what to fix.
    ///
    /// # Examples
    /// ```
    /// use http::StatusCode;
    /// use service_shell::Problem;
    /// let problem = Problem::new(StatusCode::CONFLICT, "order-cancelled", "the order is cancelled: make a new one");
    /// assert_eq!(problem.status(), StatusCode::CONFLICT);
    /// ```
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Problem {
        let (members, headers) = (Map::new(), HeaderMap::new());
        Problem(Box::new(Parts { status, kind, detail: detail.into(), members, headers }))
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 422: the request was read, and one field cannot be right.
    pub fn invalid(field: &str, detail: impl fmt::Display) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", format!("{field} {detail}"))
            .with("field", field)
    }

    /// 404: there is no such thing, or it belongs to another merchant.
    pub fn not_found(what: &str) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    /// 409: true of the data now, not of the request.
    pub fn conflict(kind: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, kind, detail)
    }

    /// 422: the row that this `Idempotency-Key` made says something else than this request.
    ///
    /// A row is kept for longer than the record of the key, so a key that is used again long after meets it.
    pub fn key_reused() -> Problem {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "this Idempotency-Key came before with another request: use a new one",
        )
    }

    /// 401, always in the same words: a caller does not learn why it failed.
    pub fn unauthenticated() -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "authentication-failed", "Authentication failed")
    }

    /// 503 with `Retry-After`: something we need did not answer. The cause goes to the log only.
    pub fn unavailable(what: &str, cause: &dyn fmt::Display) -> Problem {
        let incident = Uuid::now_v7();
        tracing::warn!(%incident, cause = %cause, "{what} is unavailable");
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            format!("{what} did not answer; retry with the same Idempotency-Key"),
        )
        .with("incident", incident.to_string())
        .retry_after(Duration::from_secs(1))
    }

    /// 500. The cause goes to the log, the incident id goes to both.
    pub fn internal(cause: &dyn fmt::Display) -> Problem {
        let incident = Uuid::now_v7();
        tracing::error!(%incident, cause = %cause, "internal error");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "an internal error; its outcome may be unknown, so ask with GET before trying again",
        )
        .with("incident", incident.to_string())
    }

    /// Adds an extension member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a response header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.0.headers.insert(name, value);
        self
    }

    /// Adds `Retry-After`, rounded up to whole seconds.
    pub fn retry_after(self, wait: Duration) -> Problem {
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable kind, the last part of the `type` URI.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// The thing to fix.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The response body.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({
            "type": format!("{PROBLEM_TYPES}{}", self.0.kind),
            "title": self.0.status.canonical_reason().unwrap_or("Error"),
            "status": self.0.status.as_u16(),
            "detail": self.0.detail,
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.0.members.clone());
        }
        body
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.detail, self.0.status.as_u16())
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body().to_string();
        let Parts { status, headers, .. } = *self.0;
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))];
        (status, headers, content_type, body).into_response()
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Problem {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                Problem::unavailable("the database", &error)
            }
            _ => Problem::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_its_own() {
        let body = Problem::invalid("amount", "must be greater than 0").body();
        assert_eq!(body["type"], format!("{PROBLEM_TYPES}invalid-field"));
        assert_eq!(body["title"], "Unprocessable Entity");
        assert_eq!(body["status"], 422);
        assert_eq!(body["detail"], "amount must be greater than 0");
        assert_eq!(body["field"], "amount");
    }

    #[test]
    fn an_internal_error_keeps_its_cause_to_itself() {
        let body = Problem::internal(&"password=hunter2").body().to_string();
        assert!(!body.contains("hunter2") && body.contains("incident"), "{body}");
    }

    #[test]
    fn a_wait_is_rounded_up() {
        let problem = Problem::bad_request("x").retry_after(Duration::from_millis(1200));
        assert_eq!(problem.0.headers[header::RETRY_AFTER], "2");
    }
}
