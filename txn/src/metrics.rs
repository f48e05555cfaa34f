//! Records metrics through the facade `metrics`, per label, and logs the same events.

use std::time::Duration;

use metrics::{Unit, describe_counter, describe_histogram};

use crate::error::ErrorKind;
use crate::failure::Failure;
use crate::pool_error::PoolError;

const RUNS: &str = "probity_txn_runs_total";
const ATTEMPTS: &str = "probity_txn_attempts_total";
const CONFLICTS: &str = "probity_txn_conflicts_total";
const RUN_SECONDS: &str = "probity_txn_run_seconds";
const LOCK_WAIT: &str = "probity_txn_lock_wait_seconds";
const BETWEEN_STATEMENTS: &str = "probity_txn_between_statements_seconds";

/// Describes the metrics of this crate, with their units, to the recorder of the process.
///
/// Call it once, after the recorder was installed. The metrics are recorded without it too.
///
/// # Examples
///
/// ```
/// // metrics_exporter_prometheus::PrometheusBuilder::new().install()?;
/// probity_txn::describe_metrics();
/// ```
pub fn describe_metrics() {
    describe_counter!(RUNS, Unit::Count, "Runs, by outcome: committed, or the kind of the error");
    describe_counter!(ATTEMPTS, Unit::Count, "Attempts of runs; more attempts than runs mean conflicts");
    describe_counter!(CONFLICTS, Unit::Count, "Attempts that ended in a conflict, by its class");
    describe_histogram!(RUN_SECONDS, Unit::Seconds, "Duration of a run, with its pauses");
    describe_histogram!(LOCK_WAIT, Unit::Seconds, "Time until a locking statement was answered");
    describe_histogram!(
        BETWEEN_STATEMENTS,
        Unit::Seconds,
        "Time of an attempt in which the database waited for the closure"
    );
}

/// Counts an attempt that begins.
pub(crate) fn count_attempt(label: &'static str) {
    metrics::counter!(ATTEMPTS, "label" => label).increment(1);
}

/// Records the time until a locking statement was answered, granted or not; without contention it is a round trip.
pub(crate) fn record_lock_wait(label: &'static str, waited: Duration) {
    metrics::histogram!(LOCK_WAIT, "label" => label).record(waited);
}

/// Counts an attempt that ended in a conflict, whether another one follows or not.
pub(crate) fn count_conflict(label: &'static str, class: &'static str) {
    metrics::counter!(CONFLICTS, "label" => label, "class" => class).increment(1);
}

/// Logs that another attempt follows.
pub(crate) fn log_retry(attempt: u32, failure: &Failure, pause: Duration) {
    tracing::debug!(attempt, ?pause, %failure, class = failure.class().name(), "the attempt failed; the run tries again");
}

/// Logs the reason why the pool has given no connection yet.
pub(crate) fn warn_no_connection(label: &'static str, why: &PoolError) {
    tracing::warn!(label, server = why.server(), error = %why.driver(), remedy = why.remedy(), "the pool has given no connection yet; the run waits");
}

/// Records a run that ended.
pub(crate) fn record_run(label: &'static str, took: Duration, failed: Option<ErrorKind>) {
    let outcome = failed.map_or("committed", ErrorKind::name);
    metrics::counter!(RUNS, "label" => label, "outcome" => outcome).increment(1);
    metrics::histogram!(RUN_SECONDS, "label" => label).record(took);
}

/// Records the time between the statements of an attempt whose closure ended, and warns if it was much.
pub(crate) fn record_between_statements(label: &'static str, spent: Duration, warn: Duration) {
    metrics::histogram!(BETWEEN_STATEMENTS, "label" => label).record(spent);
    if spent > warn {
        tracing::warn!(
            label,
            ?spent,
            "the closure spent much time between two statements; move external calls out of the transaction"
        );
    }
}
