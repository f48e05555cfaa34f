//! The rules of steps that call peers: what a failed call proves, and how long a peer that is away is waited for.
//!
//! Invariant: a step answers "this did not happen" only for a call of which that is proven.

use std::time::Duration;

use probity_saga::{Backoff, StepError, StepPolicy};

use crate::CallError;

/// Tells the saga of the failed call of a step that has no other effect than that call.
///
/// If it is proven that nothing was sent, then nothing has happened, and the step waits for the peer; a step with another
/// effect before this call could not say so. Everywhere else `?` makes the same error an unknown outcome.
pub fn only_effect(error: CallError) -> StepError {
    if error.nothing_was_sent() { StepError::unreachable(error.peer(), error) } else { error.into() }
}

/// The policy of every step: three retries, nine of its undo, and `waits` pauses for a peer that is away. All of them
/// begin with `first` and double, the retries up to four times as long, the pauses up to 150 times.
///
/// With 2 seconds and 18 pauses a peer that is away is waited for about an hour.
pub fn step_policy(first: Duration, waits: u32) -> StepPolicy {
    StepPolicy::default()
        .retries(Backoff::doubling(3, first, first.saturating_mul(4)))
        .undo_retries(Backoff::doubling(9, first, Duration::from_secs(300)))
        .patience(Backoff::doubling(waits, first, first.saturating_mul(150)).jittered())
}
