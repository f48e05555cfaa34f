//! The schedule of the tries of a step: a short one for failures, a long one for a provider that is away.
//!
//! One number is stored, so what it says after a pause is a guess: never that more definite failures were left than the
//! policy gives, and never that there is no end.

use std::time::Duration;

use super::Backoff;

/// The kind of a failed try: it chooses the schedule of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The other side answered, or there is no probe.
    Definite,
    /// The provider could not be reached, or a question to it may still be answered. It waits by the schedule of
    /// patience, and when that is over as after a definite failure.
    Away,
}

/// The tries of one operation of a step.
#[derive(Debug, Clone)]
pub(crate) struct Tries {
    retries: Backoff,
    patience: Backoff,
    /// All that failed.
    failures: u32,
    definite: u32,
    seed: u64,
}

impl Tries {
    /// After so many failures, the last of which was one of a provider that was `away`.
    pub(crate) fn resumed(retries: Backoff, patience: Backoff, failures: u32, away: bool, seed: u64) -> Self {
        // More failures than the schedule of definite failures allows: most of them were waits.
        let definite = if away || failures > retries.times() { 0 } else { failures };
        Self { retries, patience, failures, definite, seed }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause before the next try, or `None` if there is none.
    pub(crate) fn after(&mut self, failure: Failure) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        match failure {
            Failure::Definite => self.after_definite(),
            Failure::Away => {
                let waits = self.failures - self.definite;
                self.patience.spread(waits, self.seed).or_else(|| self.after_definite())
            }
        }
    }

    fn after_definite(&mut self) -> Option<Duration> {
        self.definite += 1;
        let most = self.retries.times().saturating_add(self.patience.times());
        self.retries.spread(self.definite, self.seed).filter(|_| self.failures <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn resumed(failures: u32, away: bool) -> Tries {
        let patience = Backoff::doubling(18, 2 * SECOND, 300 * SECOND);
        Tries::resumed(Backoff::doubling(3, 2 * SECOND, 8 * SECOND), patience, failures, away, 7)
    }

    fn waits(tries: &mut Tries, failure: Failure) -> Vec<u64> {
        std::iter::from_fn(|| tries.after(failure)).map(|wait| wait.as_secs()).collect()
    }

    #[test]
    fn definite_failures_wait_two_four_and_eight_seconds_and_a_provider_an_hour() {
        assert_eq!(waits(&mut resumed(0, false), Failure::Definite), [2, 4, 8]);
        let away = waits(&mut resumed(0, false), Failure::Away);
        assert_eq!(away[..9], [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(away[17..], [300, 2, 4, 8], "the tries of definite failures are left");
        assert!((3000..=3600).contains(&away.iter().sum::<u64>()), "{away:?}");
    }

    #[test]
    fn an_outage_uses_no_retry_of_definite_failures() {
        let mut tries = resumed(0, false);
        for _ in 0..10 {
            tries.after(Failure::Away);
        }
        assert_eq!(waits(&mut tries, Failure::Definite), [2, 4, 8]);
        assert_eq!(waits(&mut resumed(6, true), Failure::Definite), [2, 4, 8]);
    }

    #[test]
    fn a_schedule_goes_on_where_it_was_left() {
        assert_eq!(waits(&mut resumed(2, false), Failure::Definite), [8]);
        assert_eq!(waits(&mut resumed(6, true), Failure::Away)[0], 128);
    }

    #[test]
    fn alternating_failures_come_to_an_end() {
        let (mut tries, mut all) = (resumed(0, false), 0);
        while tries.after(if all % 2 == 0 { Failure::Away } else { Failure::Definite }).is_some() {
            // Given up and taken up again each time.
            tries = resumed(tries.failures(), all % 2 == 0);
            all += 1;
            assert!(all < 100);
        }
    }
}
