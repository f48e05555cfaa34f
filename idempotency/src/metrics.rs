//! What an operator sees: counters through the `metrics` facade. Never a key, a scope or a body.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error};

use crate::core::claim::{Answer, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::error::StoreError;

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
pub(crate) async fn stored<T>(
    call: &'static str,
    asking: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let asked_at = Instant::now();
    let answer = asking.await;
    let took = asked_at.elapsed();
    labelled!(histogram, "idempotency_store_seconds", "call" => call,
        "begin" "renew" "mark_effect" "complete" "tombstone" "abandon")
    .record(took);
    answer
}

/// The number of lost attempts that a process remembers, so that the log names each once.
const LOST: usize = 1024;

/// Logs, at level ERROR, that nobody knows what became of an attempt; once in a process, however often it is asked for.
fn log_indeterminate(record: RecordId, fence: Fence, attempt: u32) {
    static LOGGED: Mutex<VecDeque<(RecordId, Fence)>> = Mutex::new(VecDeque::new());
    // A queue is whole between any two statements here, so a panic elsewhere cannot have torn it.
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
        "outcome unknown; it will not run again without proof: find out what happened, and resolve it with this fence"
    );
}

/// Counts an answer under its name.
pub(crate) fn answered<G>(record: RecordId, answer: &Answer<G>, took: Duration) {
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
    labelled!(counter, "idempotency_claims_total", "outcome" => outcome,
        "acquired" "replay" "in_flight" "mismatch" "not_replayable" "indeterminate")
    .increment(1);
    metrics::histogram!("idempotency_begin_seconds").record(took);
}

/// Counts a completion; a late one came after the lease and is worth an alert.
#[expect(clippy::cast_precision_loss, reason = "a histogram of sizes needs no exact large numbers")]
pub(crate) fn completed(bytes: usize, late: bool, written: &Written) {
    if matches!(written, Written::Applied) {
        metrics::histogram!("idempotency_stored_bytes").record(bytes as f64);
        if late {
            metrics::counter!("idempotency_late_completions_total").increment(1);
        }
    }
    if matches!(written, Written::LostTo(_)) {
        lease_lost();
    }
}

/// Counts a completion that was written in the caller's transaction; whether that is committed, only the caller learns.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn completed_in(bytes: usize, late: bool, written: &Result<(), StoreError>) {
    match written {
        Ok(()) => completed(bytes, late, &Written::Applied),
        Err(error) if error.kind() == crate::error::ErrorKind::LeaseLost => lease_lost(),
        Err(_) => {}
    }
}

/// A lease ended under running work.
pub(crate) fn lease_lost() {
    metrics::counter!("idempotency_lost_leases_total").increment(1);
}

/// A record became indeterminate.
pub(crate) fn indeterminate(record: RecordId, fence: Fence, attempt: u32) {
    metrics::counter!("idempotency_indeterminate_total").increment(1);
    log_indeterminate(record, fence, attempt);
}

#[cfg(feature = "tower")]
/// An answer was sent that could not be recorded.
pub(crate) fn unrecorded() {
    metrics::counter!("idempotency_unrecorded_total").increment(1);
}

/// The store failed, and a call was refused for it.
pub(crate) fn store_failed() {
    metrics::counter!("idempotency_store_errors_total").increment(1);
}
