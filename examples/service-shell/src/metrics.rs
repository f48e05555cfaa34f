//! Prometheus metrics: one recorder for a process, rendered on demand.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, or finds it installed: `payment-platform` runs several services in one process.
pub(crate) fn install() {
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed, so /metrics stays empty");
        }
        handle
    });
}

/// The text of `/metrics`.
pub(crate) fn render() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Counts and times one request. `route` is the template, never the path: labels must stay few.
pub(crate) fn request(
    service: &'static str,
    method: &http::Method,
    route: String,
    status: u16,
    took: Duration,
) {
    let method = method.as_str().to_owned();
    metrics::counter!("http_requests_total",
        "service" => service, "method" => method.clone(), "route" => route.clone(), "status" => status.to_string())
    .increment(1);
    metrics::histogram!("http_request_duration_seconds",
        "service" => service, "method" => method, "route" => route)
    .record(took);
}
