//! Prometheus metrics: one recorder for a process, rendered on demand.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::Pool;

const REQUESTS: &str = "http_requests_total";
const REQUEST_SECONDS: &str = "http_request_duration_seconds";
const CONNECTIONS: &str = "database_connections";
const CONNECTIONS_MAX: &str = "database_connections_max";

/// The buckets of a histogram that has no line in [`BUCKETS`]: the seconds of a call, of a statement or of a step.
const CALL: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// The buckets of the others. A histogram without buckets would be a summary, which cannot be added over processes.
const BUCKETS: [(&str, &[f64]); 3] = [
    // From one round of local calls to a saga that waits for a provider for a day.
    (
        "probity_saga_seconds",
        &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0, 86_400.0],
    ),
    ("probity_saga_batch_size", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
    (
        "probity_idempotency_stored_bytes",
        &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0],
    ),
];

/// The counters that alerts watch. They begin at 0: Prometheus sees no step in a counter whose first value is 1.
const WATCHED: [&str; 9] = [
    "probity_idempotency_indeterminate_total",
    "probity_idempotency_late_completions_total",
    "probity_idempotency_lost_leases_total",
    "probity_idempotency_store_errors_total",
    "probity_idempotency_unrecorded_total",
    "probity_saga_fenced_writes_total",
    "probity_saga_lease_lapses_total",
    "probity_saga_poison_total",
    "probity_saga_store_errors_total",
];

/// The time between two looks at a pool, and between two emptyings of the recorder's buffers.
const PAUSE: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, or finds it installed: `payment-platform` runs several services in one process.
pub(crate) fn install() {
    RECORDER.get_or_init(|| {
        let recorder =
            recorder().inspect_err(|error| tracing::error!(%error, "/metrics stays empty")).ok()?;
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed, so /metrics stays empty");
        }
        describe();
        let emptied = handle.clone();
        // Without it the buffers of a process that is never scraped would grow for ever.
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            loop {
                thread::park_timeout(PAUSE);
                emptied.run_upkeep();
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "the buffers of the metrics are emptied by scrapes only");
        }
        Some(handle)
    });
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let usual = PrometheusBuilder::new().set_buckets(CALL)?;
    let with = |builder: PrometheusBuilder, (name, buckets): (&str, &[f64])| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)
    };
    Ok(BUCKETS.into_iter().try_fold(usual, with)?.build_recorder())
}

fn describe() {
    probity_txn::describe_metrics();
    probity_idempotency::describe_metrics();
    // The metrics of sagas are described by each orchestrator that starts.
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Requests that were answered, by service, method, route and status"
    );
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time until the answer of a request begins");
    describe_gauge!(CONNECTIONS, Unit::Count, "Open connections of a service to its database, used or idle");
    describe_gauge!(CONNECTIONS_MAX, Unit::Count, "The most connections of a service to its database");
    for name in WATCHED {
        counter!(name).increment(0);
    }
}

/// The text of `/metrics`.
pub(crate) fn render() -> String {
    RECORDER.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
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
    counter!(REQUESTS,
        "service" => service, "method" => method.clone(), "route" => route.clone(), "status" => status.to_string())
    .increment(1);
    histogram!(REQUEST_SECONDS, "service" => service, "method" => method, "route" => route).record(took);
}

/// Shows how many connections a pool has, until it is closed.
pub(crate) async fn show_pool(service: &'static str, pool: Pool) {
    let show = |state, connections: u32| {
        gauge!(CONNECTIONS, "service" => service, "state" => state).set(connections);
    };
    gauge!(CONNECTIONS_MAX, "service" => service).set(pool.options().get_max_connections());
    while !pool.is_closed() {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        show("idle", idle);
        show("used", pool.size().saturating_sub(idle));
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_buckets_and_none_is_a_summary() {
        let recorder = recorder().unwrap();
        let names = ["probity_txn_run_seconds", "probity_saga_seconds", "probity_idempotency_stored_bytes"];
        metrics::with_local_recorder(&recorder, || {
            describe();
            for name in names {
                histogram!(name).record(300.0);
            }
        });
        let text = recorder.handle().render();
        for name in names {
            assert!(text.contains(&format!("# TYPE {name} histogram")), "{text}");
            assert!(text.contains(&format!("# HELP {name} ")) == (name != "probity_saga_seconds"), "{text}");
        }
        assert!(text.contains("probity_saga_seconds_bucket{le=\"600\"} 1"), "{text}");
        assert!(text.contains("probity_idempotency_stored_bytes_bucket{le=\"1024\"} 1"), "{text}");
        assert!(!text.contains("quantile="), "{text}");
    }
}
