//! What a run tells the outside: metrics through the `metrics` facade, per label.

use std::time::Duration;

use crate::classify::Failure;
use crate::error::ErrorKind;
use crate::pool_error::PoolError;

/// An attempt begins.
pub(crate) fn attempt(label: &'static str) {
    metrics::counter!("probity_txn_attempts_total", "label" => label).increment(1);
}

/// A locking statement was answered, granted or not; without contention this is its round trip.
pub(crate) fn lock_wait(label: &'static str, waited: Duration) {
    metrics::histogram!("probity_txn_lock_wait_seconds", "label" => label).record(waited);
}

/// An attempt ended in a conflict, whether another one follows or not.
pub(crate) fn conflict(label: &'static str, class: &'static str) {
    metrics::counter!("probity_txn_conflicts_total", "label" => label, "class" => class).increment(1);
}

/// Another attempt follows.
pub(crate) fn again(attempt: u32, failure: &Failure, pause: Duration) {
    tracing::debug!(attempt, ?pause, %failure, class = failure.class().name(), "trying again");
}

/// The pool has given no connection yet, and this is why.
pub(crate) fn no_connection(label: &'static str, why: &PoolError) {
    tracing::warn!(label, server = why.server(), error = %why.driver(), remedy = why.remedy(), "no connection yet");
}

/// A run ended.
pub(crate) fn finished(label: &'static str, took: Duration, failed: Option<ErrorKind>) {
    let outcome = failed.map_or("committed", ErrorKind::name);
    metrics::counter!("probity_txn_runs_total", "label" => label, "outcome" => outcome).increment(1);
    metrics::histogram!("probity_txn_run_seconds", "label" => label).record(took);
}

/// The closure of an attempt ended.
pub(crate) fn between_statements(label: &'static str, spent: Duration) {
    metrics::histogram!("probity_txn_between_statements_seconds", "label" => label).record(spent);
}
