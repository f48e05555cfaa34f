//! The metrics and log lines that an operator sees, through the `metrics` facade. None holds a key, a scope or a body.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error};

use crate::core::claim::{Answer, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::error::StoreError;

/// Describes the metrics of this crate, with their units, to the recorder that is installed.
///
/// Call it once, after the recorder of the process is installed. Without it the metrics are the same, and have no
/// descriptions.
///
/// ```
/// probity_idempotency::describe_metrics();
/// ```
pub fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_histogram};

    describe_counter!(
        "probity_idempotency_claims_total",
        Unit::Count,
        "Answers of the store to claims, by outcome"
    );
    describe_histogram!(
        "probity_idempotency_claim_seconds",
        Unit::Seconds,
        "The time of a claim, with the recovery of a lost attempt"
    );
    describe_histogram!(
        "probity_idempotency_store_seconds",
        Unit::Seconds,
        "The time in which the store answers or fails, by call"
    );
    describe_histogram!("probity_idempotency_stored_bytes", Unit::Bytes, "The size of recordings");
    describe_counter!(
        "probity_idempotency_store_errors_total",
        Unit::Count,
        "Requests that were refused because the store failed"
    );
    describe_counter!(
        "probity_idempotency_unrecorded_total",
        Unit::Count,
        "Answers that were sent and could not be recorded at once"
    );
    describe_counter!(
        "probity_idempotency_lost_leases_total",
        Unit::Count,
        "Attempts that lost their lease while they ran"
    );
    describe_counter!(
        "probity_idempotency_late_completions_total",
        Unit::Count,
        "Completions after the end of the lease"
    );
    describe_counter!(
        "probity_idempotency_indeterminate_total",
        Unit::Count,
        "Records that became indeterminate"
    );
}

/// A metric with one of a few labels. Each of them is written out, so that none is put together for every call.
macro_rules! labelled {
    ($kind:ident, $name:literal, $label:literal => $value:expr, $($known:literal)+) => {
        match $value {
            $($known => metrics::$kind!($name, $label => $known),)+
            other => metrics::$kind!($name, $label => other),
        }
    };
}

/// Measures how long the store takes to answer, or to fail.
pub(crate) async fn time_call<T>(
    call: &'static str,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let asked_at = Instant::now();
    let answer = asking.await;
    let took = asked_at.elapsed();
    labelled!(histogram, "probity_idempotency_store_seconds", "call" => call,
        "claim" "renew" "mark_effect" "complete" "tombstone" "release")
    .record(took);
    answer
}

/// The number of lost attempts that a process remembers, so that the log names each once.
const LOST: usize = 1024;

/// Logs, at level ERROR, an attempt with an unknown outcome; once in a process, for any number of calls.
fn log_indeterminate(record: RecordId, fence: Fence, attempt: u32) {
    static LOGGED: Mutex<VecDeque<(RecordId, Fence)>> = Mutex::new(VecDeque::new());
    // A queue is whole between any two statements here, so a panic of another thread leaves it consistent.
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.contains(&(record, fence)) {
        drop(logged);
        debug!(?record, fence = fence.0, attempt, "the outcome is still unknown");
        return;
    }
    logged.truncate(LOST - 1);
    logged.push_front((record, fence));
    drop(logged);
    error!(
        ?record,
        fence = fence.0,
        attempt,
        "outcome unknown; the key is not run again without proof: find out what happened, and resolve the record with this fence"
    );
}

/// Counts an answer under its name.
pub(crate) fn count_answer<G>(record: RecordId, answer: &Answer<G>, took: Duration) {
    if let Answer::Indeterminate(lost) = answer {
        log_indeterminate(record, lost.fence, lost.attempt);
    }
    let outcome = match answer {
        Answer::Acquired(_) => "acquired",
        Answer::Replay(_) => "replay",
        Answer::InFlight { .. } => "in_flight",
        Answer::Mismatch => "mismatch",
        Answer::NotReplayable(_) => "not_replayable",
        Answer::Indeterminate(_) => "indeterminate",
    };
    count_claim(outcome, took);
}

/// Counts an answer that the hook has rendered and that is not final.
pub(crate) fn count_pending(took: Duration) {
    count_claim("pending", took);
}

fn count_claim(outcome: &'static str, took: Duration) {
    labelled!(counter, "probity_idempotency_claims_total", "outcome" => outcome,
        "acquired" "replay" "in_flight" "mismatch" "not_replayable" "indeterminate" "pending")
    .increment(1);
    metrics::histogram!("probity_idempotency_claim_seconds").record(took);
}

/// Counts a completion; a late one came after the lease and is worth an alert.
#[expect(clippy::cast_precision_loss, reason = "a histogram of sizes needs no exact large numbers")]
pub(crate) fn count_completion(bytes: usize, late: bool, written: &Written) {
    if matches!(written, Written::Applied) {
        metrics::histogram!("probity_idempotency_stored_bytes").record(bytes as f64);
        if late {
            metrics::counter!("probity_idempotency_late_completions_total").increment(1);
        }
    }
    if matches!(written, Written::LostTo(_)) {
        count_lost_lease();
    }
}

/// Counts a completion that was written in the caller's transaction; whether that is committed, only the caller learns.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn count_completion_in(bytes: usize, late: bool, written: &Result<(), StoreError>) {
    match written {
        Ok(()) => count_completion(bytes, late, &Written::Applied),
        Err(error) if error.kind() == crate::error::ErrorKind::LeaseLost => count_lost_lease(),
        Err(_) => {}
    }
}

/// A lease ended under running work.
pub(crate) fn count_lost_lease() {
    metrics::counter!("probity_idempotency_lost_leases_total").increment(1);
}

/// A record became indeterminate.
pub(crate) fn count_indeterminate(record: RecordId, fence: Fence, attempt: u32) {
    metrics::counter!("probity_idempotency_indeterminate_total").increment(1);
    log_indeterminate(record, fence, attempt);
}

#[cfg(feature = "tower")]
/// An answer was sent that could not be recorded.
pub(crate) fn count_unrecorded() {
    metrics::counter!("probity_idempotency_unrecorded_total").increment(1);
}

/// The store failed, and a call was refused for it.
pub(crate) fn count_store_error() {
    metrics::counter!("probity_idempotency_store_errors_total").increment(1);
}
