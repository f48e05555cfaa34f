//! Chooses the pauses between attempts: those of the policy, or of a schedule of the caller's.
//!
//! Invariant: no clock and no randomness of its own. A schedule of the caller's begins anew with each run.

use std::fmt;
#[cfg(feature = "backoff")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[cfg(feature = "backoff")]
use backoff::backoff::Backoff;

use crate::policy::Policy;

#[cfg(feature = "backoff")]
type Given = Box<dyn Backoff + Send>;

/// The schedule of a run, before it begins.
#[derive(Default)]
pub(crate) struct Schedule {
    // Behind a lock because the settings are shared; it is taken once.
    #[cfg(feature = "backoff")]
    given: Option<Mutex<Option<Given>>>,
}

impl Schedule {
    /// Takes the pauses from `schedule`.
    #[cfg(feature = "backoff")]
    pub(crate) fn from_backoff(schedule: impl Backoff + Send + 'static) -> Self {
        Self { given: Some(Mutex::new(Some(Box::new(schedule)))) }
    }

    /// The pauses of the run.
    pub(crate) fn pauses(&self) -> Pauses {
        Pauses {
            #[cfg(feature = "backoff")]
            given: self.given.as_ref().and_then(|given| {
                // A panic of another thread leaves it consistent.
                let mut given = given.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(given) = &mut given {
                    given.reset();
                }
                given
            }),
        }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "backoff")]
        if self.given.is_some() {
            return f.write_str("Schedule(given)");
        }
        f.write_str("Schedule(policy)")
    }
}

/// The pauses of one run.
pub(crate) struct Pauses {
    #[cfg(feature = "backoff")]
    given: Option<Given>,
}

impl Pauses {
    /// The pause after so many conflicts; `None` if the schedule says that it is enough.
    pub(crate) fn next(&mut self, policy: &Policy, conflicts: u32, random: u32) -> Option<Duration> {
        #[cfg(feature = "backoff")]
        if let Some(given) = &mut self.given {
            return given.next_backoff();
        }
        Some(policy.pause(conflicts, random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_schedule_the_policy_decides() {
        let policy = Policy::payments();
        let mut pauses = Schedule::default().pauses();
        assert_eq!(pauses.next(&policy, 2, u32::MAX), Some(Duration::from_millis(10)));
    }

    #[cfg(feature = "backoff")]
    #[test]
    fn a_given_schedule_begins_anew_with_each_run() {
        let policy = Policy::payments();
        let constant = backoff::backoff::Constant::new(Duration::from_millis(7));
        let schedule = Schedule::from_backoff(constant);
        assert_eq!(schedule.pauses().next(&policy, 1, 0), Some(Duration::from_millis(7)));
        let mut growing = backoff::ExponentialBackoff { randomization_factor: 0.0, ..Default::default() };
        let first = growing.next_backoff();
        growing.next_backoff();
        assert_eq!(Schedule::from_backoff(growing).pauses().next(&policy, 9, 0), first);
        assert_eq!(Schedule::from_backoff(backoff::backoff::Stop {}).pauses().next(&policy, 1, 0), None);
    }
}
