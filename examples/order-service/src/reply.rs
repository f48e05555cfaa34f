//! One answer in two forms: what the caller gets now, and what a repetition of the request gets later.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use probity_idempotency::Recording;
use serde::Serialize;
use service_shell::Problem;

/// An answer that was decided inside a transaction, to be recorded there and sent after the commit.
#[derive(Clone, Debug)]
#[must_use = "a reply does nothing until it is recorded and returned"]
pub(crate) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Reply {
    /// A success.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Reply {
        match serde_json::to_string(body) {
            Ok(body) => Reply { status, content_type: "application/json", body },
            Err(error) => Reply::problem(&Problem::internal(&error)),
        }
    }

    /// A refusal.
    pub(crate) fn problem(problem: &Problem) -> Reply {
        Reply {
            status: problem.status(),
            content_type: "application/problem+json",
            body: problem.body().to_string(),
        }
    }

    /// What a repetition is answered with.
    pub(crate) fn recording(&self) -> Recording {
        Recording::new(self.status.as_u16())
            .header(header::CONTENT_TYPE.as_str(), self.content_type)
            .body(self.body.clone())
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, self.content_type)], self.body).into_response()
    }
}
