//! axum: the lease as an extractor, a recording as a response.

use std::convert::Infallible;

use axum_core::extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Request};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::answer;
use super::passage::{self, Passage};
use crate::core::recording::Recording;
use crate::lease::handle::Lease;

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

/// An extractor whose refusal gives the key back: `OrRelease(Json(order)): OrRelease<Json<Order>>`.
///
/// axum calls a handler only when all its extractors have succeeded. The refusal of one therefore proves that the handler
/// was not reached, which its status (400, 413, 415 or 422, say) does not. That holds of one request: if it was copied, as
/// the extractor `Parts` and a layer that sends it again do, a copy may have run, and the answer is recorded.
///
/// ```
/// # use axum::{Json, Router, routing::post};
/// # use probity_idempotency::{Lease, OrRelease};
/// async fn create(lease: Lease, OrRelease(Json(amount)): OrRelease<Json<u64>>) -> String {
///     format!("{amount} as {}", lease.downstream_key("channel"))
/// }
/// # let _: Router = Router::new().route("/payments", post(create));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct OrRelease<E>(pub E);

impl<S: Sync, E: FromRequest<S>> FromRequest<S> for OrRelease<E> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let came = Passage::of(request.extensions());
        E::from_request(request, state).await.map(Self).map_err(|rejection| refuse(rejection, came))
    }
}

impl<S: Sync, E: FromRequestParts<S>> FromRequestParts<S> for OrRelease<E> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let came = Passage::of(&parts.extensions);
        E::from_request_parts(parts, state).await.map(Self).map_err(|rejection| refuse(rejection, came))
    }
}

fn refuse(rejection: impl IntoResponse, came: Option<Passage>) -> Response {
    let mut response = rejection.into_response();
    passage::tell_not_reached(&mut response, came);
    response
}

impl IntoResponse for Recording {
    /// The answer exactly as retries will get it. One that is no HTTP answer becomes a 500.
    fn into_response(self) -> Response {
        match answer::answer(&self) {
            Ok((response, _)) => response.map(http_body_util::Full::new).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
