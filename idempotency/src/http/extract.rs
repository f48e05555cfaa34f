//! axum: the lease as an extractor, a recording as a response.

use std::convert::Infallible;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::record;
use crate::{Lease, Recording};

/// The handler's lease.
///
/// # Errors
/// 500 if the route is not behind an [`IdempotencyLayer`](crate::IdempotencyLayer), or the request was passed through
/// without a key: a handler that needs a lease must not run without one.
impl<S: Sync> FromRequestParts<S> for Lease {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Self>().cloned().ok_or((
            StatusCode::INTERNAL_SERVER_ERROR,
            "this route needs an IdempotencyLayer that requires a key",
        ))
    }
}

/// The handler's lease, or `None` where a request without a key is passed through: `lease: Option<Lease>`.
impl<S: Sync> OptionalFromRequestParts<S> for Lease {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

impl IntoResponse for Recording {
    /// The answer exactly as retries will get it. One that is no HTTP answer becomes a 500.
    fn into_response(self) -> Response {
        match record::answer(&self) {
            Ok(response) => response.map(http_body_util::Full::new).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
