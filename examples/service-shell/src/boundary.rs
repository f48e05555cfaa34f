//! The layers between the network and a handler.
//!
//! From the outside in: a request gets an id and a span, and is counted and timed; a panic becomes a 500; whatever else leaves as an
//! error becomes a [`Problem`]; the body is read whole, up to [`BODY_LIMIT`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, map_request};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{Instant, timeout};
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::TraceLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::json::too_large;
use crate::problem::PROBLEM_JSON;
use crate::{Health, Problem, StartError, health, metrics, openapi, trace};

/// The largest request body, in bytes. No route needs more than a few kilobytes.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// The bytes of a body that is too large which are read and thrown away, so that the sender gets to read the 413
/// instead of a broken connection.
const DISCARD_LIMIT: usize = 32 * 1024 * 1024;

const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Puts the boundary around the routes of a service, and health, metrics and the document of all of them beside.
///
/// # Errors
/// [`StartError::Other`] when the document cannot be written.
pub fn shell(service: &'static str, health: Health, api: OpenApiRouter) -> Result<Router, StartError> {
    let (routes, mut document) = api.split_for_parts();
    document.merge(own_routes(health.clone(), Arc::from("")).into_openapi());
    openapi::complete(&mut document, service);
    let json = document.to_json().map_err(|error| StartError::other("the OpenAPI document", error))?;
    Ok(around(service, routes.merge(own_routes(health, json.into()))))
}

fn own_routes(health: Health, openapi: Arc<str>) -> OpenApiRouter {
    health::routes(health).merge(
        OpenApiRouter::default().routes(routes!(metrics_text)).routes(routes!(document)).with_state(openapi),
    )
}

/// Shows the metrics as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "Prometheus text.", body = String, content_type = "text/plain")
))]
async fn metrics_text() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render())
}

/// Shows this document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, description = "OpenAPI 3.1.")))]
async fn document(State(json): State<Arc<str>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], json.to_string())
}

fn around(service: &'static str, routes: Router) -> Router {
    metrics::install();
    routes
        .fallback(no_such_route)
        .layer(from_fn(whole_body))
        .layer(from_fn(errors_are_problems))
        .layer(from_fn(panics_are_problems))
        .layer(from_fn(move |request: Request, next: Next| counted(service, request, next)))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(move |request: &Request| trace::request_span(service, request))
                .on_request(())
                .on_response(trace::answered)
                .on_failure(()),
        )
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(map_request(trace::keep_fit_id))
}

async fn no_such_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-route",
        "there is no such route; GET /openapi.json lists them",
    )
}

async fn counted(service: &'static str, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    metrics::request(service, &method, route, response.status().as_u16(), started.elapsed());
    response
}

/// The panic hook has logged where; the connection and the process live on.
async fn panics_are_problems(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => Problem::internal(&"a handler panicked").into_response(),
    }
}

/// Errors that are not JSON come from axum itself (405, 415, a bad query): their text becomes the detail.
async fn errors_are_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || carries_json(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let said = std::str::from_utf8(&said).unwrap_or_default().trim();
    let detail = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this route does not answer this method; see the Allow header",
        _ if said.is_empty() => "the request was refused",
        _ => said,
    };
    let mut problem = if status.is_server_error() {
        Problem::internal(&format_args!("{status}: {said}"))
    } else {
        Problem::new(status, "refused", detail)
    }
    .into_response();
    *problem.status_mut() = status;
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}

fn carries_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.starts_with(b"application/json") || kind.starts_with(PROBLEM_JSON.as_bytes())
}

async fn whole_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // PostgreSQL takes no NUL in a text and would answer with an error of its own.
    if parts.uri.path_and_query().is_some_and(|address| address.as_str().contains("%00")) {
        return Problem::bad_request("the address holds %00: leave it out").into_response();
    }
    if expects_continue(&parts.headers) && announced(&parts.headers) > BODY_LIMIT {
        return too_large().into_response();
    }
    match timeout(BODY_TIMEOUT, read(body)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(problem)) => problem.into_response(),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "the body did not arrive within 30 s: send it again",
        )
        .into_response(),
    }
}

/// A caller who waits for `100 Continue` has sent nothing yet, so nothing has to be thrown away.
fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn announced(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the body broke off: send it again"))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= BODY_LIMIT {
            kept.extend_from_slice(&chunk);
        } else if seen > DISCARD_LIMIT {
            break;
        }
    }
    if seen > BODY_LIMIT { Err(too_large()) } else { Ok(kept.freeze()) }
}
