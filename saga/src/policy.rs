//! How often, how long, and what to do when nobody knows. Plain data; the engine obeys it.

use std::time::Duration;

/// The rules of one step.
///
/// The default: three retries after 2, 4 and 8 seconds, 30 seconds per attempt, and when the
/// outcome is unknown: ask, then try again with the same key, then stop and show it to a person.
/// Undo is tried ten times, waiting 2 seconds doubling up to 5 minutes; if it fails all the same, the steps before it
/// wait until that is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a policy does nothing until `SagaStep::policy` returns it"]
pub struct StepPolicy {
    pub(crate) retries: Backoff,
    pub(crate) timeout: Duration,
    pub(crate) idempotent: bool,
    pub(crate) when_unknown: WhenUnknown,
    pub(crate) undo_retries: Backoff,
    pub(crate) holds_undo: bool,
}

/// What happens to a saga whose step is still unknown after every retry and every question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnknown {
    /// Stop as `stuck`, visible, with everything that is known (the default).
    Stick,
    /// Turn back: the undo of this step is called with [`Executed::Unknown`](crate::Executed). Choose it only when the
    /// other side guarantees that a late arrival cannot take effect after its cancellation.
    Compensate,
}

impl Default for StepPolicy {
    fn default() -> Self {
        Self {
            retries: Backoff::doubling(3, Duration::from_secs(2), Duration::from_secs(8)),
            timeout: Duration::from_secs(30),
            idempotent: true,
            when_unknown: WhenUnknown::Stick,
            undo_retries: Backoff::doubling(9, Duration::from_secs(2), Duration::from_secs(300)),
            holds_undo: true,
        }
    }
}

impl StepPolicy {
    /// How often `execute` is tried again, and after which waits.
    pub fn retries(mut self, retries: Backoff) -> Self {
        self.retries = retries;
        self
    }

    /// How long one attempt may take before its outcome counts as unknown.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A second call with the same key would have a second effect: never repeat an attempt whose
    /// outcome is unknown, unless `probe` proved that nothing happened.
    pub fn not_idempotent(mut self) -> Self {
        self.idempotent = false;
        self
    }

    /// What to do when nobody knows in the end.
    pub fn when_unknown(mut self, choice: WhenUnknown) -> Self {
        self.when_unknown = choice;
        self
    }

    /// Lets the undo of earlier steps go on although the undo of this one failed. The saga is `stuck` in the end all the
    /// same.
    ///
    /// By default they wait: an undo that failed leaves an effect in place, and the steps before it are often what that
    /// effect rests on. The order of a charge that could not be voided must not be cancelled. Choose this for a step
    /// that nothing before it has to do with. The saga's definition is read when it is built, so a change counts for
    /// sagas that are open.
    pub fn earlier_undos_need_not_wait(mut self) -> Self {
        self.holds_undo = false;
        self
    }

    /// How often `compensate` is tried again, and after which waits.
    pub fn undo_retries(mut self, retries: Backoff) -> Self {
        self.undo_retries = retries;
        self
    }
}

/// No wait is longer: every store can add it to its clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A bounded schedule of waits: first, doubled, up to a cap. Exact, without jitter, because a
/// person reads it in `next_retry_at`. A wait above 100 years is one of 100 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a schedule does nothing by itself"]
pub struct Backoff {
    times: u32,
    first: Duration,
    cap: Duration,
}

impl Backoff {
    /// `times` retries; the first after `first`, each wait twice the one before, none above `cap`.
    pub fn doubling(times: u32, first: Duration, cap: Duration) -> Self {
        Self { times, first, cap }
    }

    /// `times` retries with the same wait before each.
    pub fn constant(times: u32, wait: Duration) -> Self {
        Self { times, first: wait, cap: wait }
    }

    /// No retry at all.
    pub fn never() -> Self {
        Self { times: 0, first: Duration::ZERO, cap: Duration::ZERO }
    }

    /// How many retries there are in all.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times
    }

    /// The wait after `failures` failed attempts, or `None` when the schedule is exhausted.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Option<Duration> {
        if failures == 0 || failures > self.times {
            return None;
        }
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(factor).min(self.cap).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_waits_two_four_and_eight_seconds_and_then_gives_up() {
        let retries = StepPolicy::default().retries;
        let waits: Vec<_> = (1..=4).map(|n| retries.wait_after(n).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(2), Some(4), Some(8), None]);
    }

    #[test]
    fn undo_waits_double_up_to_five_minutes_for_ten_tries() {
        let undo = StepPolicy::default().undo_retries;
        let waits: Vec<_> = (1..=10).map_while(|n| undo.wait_after(n)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn no_wait_is_longer_than_a_store_can_add_to_its_clock() {
        assert_eq!(Backoff::constant(3, Duration::MAX).wait_after(1), Some(LONGEST));
    }

    #[test]
    fn a_schedule_never_overflows() {
        let huge = Backoff::doubling(u32::MAX, Duration::from_secs(2), Duration::from_secs(300));
        assert_eq!(huge.wait_after(4_000_000_000), Some(Duration::from_secs(300)));
    }
}
