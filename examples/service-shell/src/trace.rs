//! One span for each request, and the context of its trace on its way through headers and sagas (W3C Trace Context).
//!
//! Without a collector there is no context: nothing is sent, stored or linked.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::header::HeaderName;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, global};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use probity_saga::OrchestratorBuilder;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: &str = "traceparent";

/// Takes away a request id that is no short word, so that it gets one of ours.
pub(crate) async fn keep_fit_id(mut request: Request) -> Request {
    let fits =
        |id: &[u8]| id.len() <= 64 && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    if request.headers().get(REQUEST_ID).is_some_and(|id| !fits(id.as_bytes())) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

/// The span of a request, in the trace that its headers name. Health and metrics have none: they are asked all the time.
pub(crate) fn request_span(service: &'static str, request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    if route.starts_with("/health") || route == "/metrics" {
        return Span::none();
    }
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        service,
        request_id = id,
        trace_id = Empty,
        http.response.status_code = Empty
    );
    let parent = global::get_text_map_propagator(|w3c| w3c.extract(&HeaderExtractor(request.headers())));
    if span.set_parent(parent).is_ok() {
        let trace_id = span.context().span().span_context().trace_id();
        span.record("trace_id", tracing::field::display(trace_id));
    }
    span
}

/// Completes the span of a request.
pub(crate) fn answered(response: &Response, took: Duration, span: &Span) {
    span.record("http.response.status_code", response.status().as_u16());
    tracing::debug!(status = response.status().as_u16(), ?took, "answered");
}

/// Adds the context of the current span to a call of another service of the platform.
pub fn traced(call: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let mut headers = http::HeaderMap::new();
    inject(&mut HeaderInjector(&mut headers));
    call.headers(headers)
}

/// Lets each saga belong to the trace in which it was started. A later drive, after a crash or a wait, has a trace of its
/// own that is linked to it.
pub fn traced_sagas<S: ?Sized>(sagas: OrchestratorBuilder<S>) -> OrchestratorBuilder<S> {
    let current = || {
        let mut carrier = HashMap::new();
        inject(&mut carrier);
        carrier.remove(TRACE_PARENT)
    };
    sagas.trace_context(current, |span, stored, again| {
        let start = started_in(stored);
        if again {
            span.add_link(start.span().span_context().clone());
        } else {
            // It fails without a collector: then there is no trace to belong to.
            drop(span.set_parent(start));
        }
    })
}

fn started_in(stored: &str) -> Context {
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), stored.to_owned())]);
    global::get_text_map_propagator(|w3c| w3c.extract(&carrier))
}

fn inject(carrier: &mut dyn opentelemetry::propagation::Injector) {
    global::get_text_map_propagator(|w3c| w3c.inject_context(&Span::current().context(), carrier));
}
