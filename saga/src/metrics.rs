//! The metrics of the crate: every name, label and unit stands in this file.
//!
//! Labels are the type of a saga, its steps, statuses and other values of a fixed set. No label grows with traffic: no
//! business id and no payload is one. Durations are histograms in seconds.

use std::sync::Arc;
use std::time::Duration;

use metrics::{SharedString, Unit, counter, gauge, histogram};

use crate::status::Status;
use crate::step::context::Operation;

const STARTED: &str = "probity_saga_started_total";
const TRANSITIONS: &str = "probity_saga_transitions_total";
const STEP_ATTEMPTS: &str = "probity_saga_step_attempts_total";
const COMPENSATIONS: &str = "probity_saga_compensations_total";
const PROBES: &str = "probity_saga_probes_total";
const UNKNOWN_OUTCOMES: &str = "probity_saga_unknown_outcomes_total";
const RECOVERY_CLAIMS: &str = "probity_saga_recovery_claims_total";
const FENCED_WRITES: &str = "probity_saga_fenced_writes_total";
const LEASE_LAPSES: &str = "probity_saga_lease_lapses_total";
const POISON: &str = "probity_saga_poison_total";
const STORE_ERRORS: &str = "probity_saga_store_errors_total";
const ADMIN_ACTIONS: &str = "probity_saga_admin_actions_total";
const OVERDUE: &str = "probity_saga_overdue_total";
const COMMITS_UNANSWERED: &str = "probity_saga_local_commits_unanswered_total";
const CANCELS_TOO_LATE: &str = "probity_saga_cancels_too_late_total";
const BUSY_STARTS: &str = "probity_saga_busy_starts_total";
const IN_FLIGHT: &str = "probity_saga_in_flight";
const OPEN: &str = "probity_saga_open";
const OLDEST: &str = "probity_saga_oldest_seconds";
const UNRUNNABLE: &str = "probity_saga_unrunnable";
const PROVIDER_AWAY: &str = "probity_saga_provider_away";
const BATCH_SIZE: &str = "probity_saga_batch_size";
const FLUSH: &str = "probity_saga_flush_seconds";
const STEP: &str = "probity_saga_step_seconds";
const SAGA: &str = "probity_saga_seconds";
const START_WAIT: &str = "probity_saga_start_wait_seconds";

const COUNTERS: [(&str, &str); 16] = [
    (STARTED, "Sagas started, by type; also those whose transaction is then rolled back"),
    (TRANSITIONS, "Changes of status that were stored, by type and new status"),
    (STEP_ATTEMPTS, "Calls of execute, by type, step and outcome"),
    (COMPENSATIONS, "Calls of compensate, by type, step and outcome"),
    (PROBES, "Questions to probe, by type, step and result"),
    (UNKNOWN_OUTCOMES, "Steps whose outcome stayed unknown after every try, by type"),
    (RECOVERY_CLAIMS, "Sagas taken over, by reason"),
    (FENCED_WRITES, "Writes refused because another worker owns the saga"),
    (LEASE_LAPSES, "Heartbeats that found the lease of this worker lapsed"),
    (POISON, "Sagas parked because they made no progress in many claims"),
    (STORE_ERRORS, "Calls of the store that failed and are repeated"),
    (ADMIN_ACTIONS, "Decisions of operators, by verb"),
    (OVERDUE, "Sagas taken up past their pivot and past their deadline, by type"),
    (COMMITS_UNANSWERED, "Commits of local steps whose answer was lost"),
    (CANCELS_TOO_LATE, "Requests to turn back that met a saga past its pivot or at its end, by type"),
    (BUSY_STARTS, "Starts refused because the limit of sagas in flight was reached for too long"),
];

const GAUGES: [(&str, Unit, &str); 5] = [
    (IN_FLIGHT, Unit::Count, "Sagas that this worker drives"),
    (OPEN, Unit::Count, "Open sagas in the database, by type and status"),
    (OLDEST, Unit::Seconds, "Age of the oldest open saga, by type and status"),
    (UNRUNNABLE, Unit::Count, "Due sagas that no living worker drives and this worker cannot run, by type"),
    (PROVIDER_AWAY, Unit::Count, "1 while a provider cannot be reached, else 0"),
];

const HISTOGRAMS: [(&str, Unit, &str); 5] = [
    (BATCH_SIZE, Unit::Count, "Results in one write of the store"),
    (FLUSH, Unit::Seconds, "Time until the store answered one batch of results"),
    (STEP, Unit::Seconds, "Time of one call of a step, by type, step and operation"),
    (SAGA, Unit::Seconds, "Time of a saga from its start to its end, by type and final status"),
    (START_WAIT, Unit::Seconds, "Time that a start waited for the limit of sagas in flight"),
];

/// Describes every metric to the recorder that is installed. Each orchestrator does so when it starts.
pub(crate) fn describe() {
    for (name, text) in COUNTERS {
        metrics::describe_counter!(name, Unit::Count, text);
    }
    for (name, unit, text) in GAUGES {
        metrics::describe_gauge!(name, unit, text);
    }
    for (name, unit, text) in HISTOGRAMS {
        metrics::describe_histogram!(name, unit, text);
    }
}

pub(crate) fn saga_started(saga_type: &Arc<str>) {
    counter!(STARTED, "type" => Arc::clone(saga_type)).increment(1);
}

/// Counts a change of status that is stored.
pub(crate) fn transition(saga_type: impl Into<SharedString>, to: Status) {
    counter!(TRANSITIONS, "type" => saga_type.into(), "to" => to.as_str()).increment(1);
}

pub(crate) fn saga_ended(saga_type: &Arc<str>, to: Status, age: Duration) {
    histogram!(SAGA, "type" => Arc::clone(saga_type), "to" => to.as_str()).record(age);
}

pub(crate) fn step_tried(
    operation: Operation,
    saga_type: &Arc<str>,
    step: &'static str,
    outcome: &'static str,
) {
    let name = match operation {
        Operation::Execute => STEP_ATTEMPTS,
        Operation::Compensate => COMPENSATIONS,
    };
    counter!(name, "type" => Arc::clone(saga_type), "step" => step, "outcome" => outcome).increment(1);
}

pub(crate) fn step_timed(saga_type: &Arc<str>, step: &'static str, operation: &'static str, took: Duration) {
    histogram!(STEP, "type" => Arc::clone(saga_type), "step" => step, "operation" => operation).record(took);
}

pub(crate) fn step_probed(saga_type: &Arc<str>, step: &'static str, result: &'static str) {
    counter!(PROBES, "type" => Arc::clone(saga_type), "step" => step, "result" => result).increment(1);
}

pub(crate) fn outcome_unknown(saga_type: &Arc<str>) {
    counter!(UNKNOWN_OUTCOMES, "type" => Arc::clone(saga_type)).increment(1);
}

pub(crate) fn saga_taken_over(reason: &'static str) {
    counter!(RECOVERY_CLAIMS, "reason" => reason).increment(1);
}

pub(crate) fn write_fenced() {
    counter!(FENCED_WRITES).increment(1);
}

pub(crate) fn lease_lapsed() {
    counter!(LEASE_LAPSES).increment(1);
}

pub(crate) fn saga_poisoned() {
    counter!(POISON).increment(1);
}

pub(crate) fn store_failed() {
    counter!(STORE_ERRORS).increment(1);
}

pub(crate) fn operator_decided(verb: &'static str) {
    counter!(ADMIN_ACTIONS, "action" => verb).increment(1);
}

pub(crate) fn saga_overdue(saga_type: &Arc<str>) {
    counter!(OVERDUE, "type" => Arc::clone(saga_type)).increment(1);
}

pub(crate) fn local_commit_unanswered() {
    counter!(COMMITS_UNANSWERED).increment(1);
}

pub(crate) fn cancel_too_late(saga_type: &Arc<str>) {
    counter!(CANCELS_TOO_LATE, "type" => Arc::clone(saga_type)).increment(1);
}

pub(crate) fn start_refused_as_busy() {
    counter!(BUSY_STARTS).increment(1);
}

pub(crate) fn start_waited(time: Duration) {
    histogram!(START_WAIT).record(time);
}

pub(crate) fn drive_began() {
    gauge!(IN_FLIGHT).increment(1);
}

pub(crate) fn drive_ended() {
    gauge!(IN_FLIGHT).decrement(1);
}

pub(crate) fn batch_written(records: usize) {
    histogram!(BATCH_SIZE).record(u32::try_from(records).unwrap_or(u32::MAX));
}

pub(crate) fn batch_flushed(took: Duration) {
    histogram!(FLUSH).record(took);
}

pub(crate) fn open_sagas(saga_type: &str, status: Status, sagas: u64, oldest: Duration) {
    let labels = [("type", saga_type.to_owned()), ("status", status.as_str().to_owned())];
    gauge!(OPEN, &labels).set(as_float(sagas));
    gauge!(OLDEST, &labels).set(oldest.as_secs_f64());
}

pub(crate) fn unrunnable_sagas(saga_type: String, sagas: u64) {
    gauge!(UNRUNNABLE, "type" => saga_type).set(as_float(sagas));
}

pub(crate) fn provider_away(provider: String, away: bool) {
    gauge!(PROVIDER_AWAY, "provider" => provider).set(if away { 1.0 } else { 0.0 });
}

/// Gauges are floating.
fn as_float(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
