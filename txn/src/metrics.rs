//! Records metrics through the facade `metrics`, per label, and logs the same events.

use std::time::Duration;

use crate::classify::Failure;
use crate::error::ErrorKind;
use crate::pool_error::PoolError;

/// Counts an attempt that begins.
pub(crate) fn count_attempt(label: &'static str) {
    metrics::counter!("probity_txn_attempts_total", "label" => label).increment(1);
}

/// Records the time until a locking statement was answered, granted or not; without contention it is a round trip.
pub(crate) fn record_lock_wait(label: &'static str, waited: Duration) {
    metrics::histogram!("probity_txn_lock_wait_seconds", "label" => label).record(waited);
}

/// Counts an attempt that ended in a conflict, whether another one follows or not.
pub(crate) fn count_conflict(label: &'static str, class: &'static str) {
    metrics::counter!("probity_txn_conflicts_total", "label" => label, "class" => class).increment(1);
}

/// Logs that another attempt follows.
pub(crate) fn log_retry(attempt: u32, failure: &Failure, pause: Duration) {
    tracing::debug!(attempt, ?pause, %failure, class = failure.class().name(), "trying again");
}

/// Logs the reason why the pool has given no connection yet.
pub(crate) fn warn_no_connection(label: &'static str, why: &PoolError) {
    tracing::warn!(label, server = why.server(), error = %why.driver(), remedy = why.remedy(), "no connection yet");
}

/// Records a run that ended.
pub(crate) fn record_run(label: &'static str, took: Duration, failed: Option<ErrorKind>) {
    let outcome = failed.map_or("committed", ErrorKind::name);
    metrics::counter!("probity_txn_runs_total", "label" => label, "outcome" => outcome).increment(1);
    metrics::histogram!("probity_txn_run_seconds", "label" => label).record(took);
}

/// Records the time between the statements of an attempt whose closure ended, and warns if it was much.
pub(crate) fn record_between_statements(label: &'static str, spent: Duration, warn: Duration) {
    metrics::histogram!("probity_txn_between_statements_seconds", "label" => label).record(spent);
    if spent > warn {
        tracing::warn!(
            label,
            ?spent,
            "much time between the statements of a transaction: is there an external call inside?"
        );
    }
}
