//! The rules of a step: how often and how long it is tried, and what happens when the outcome is unknown. Plain data,
//! which the engine applies.

mod tries;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use tries::{Failure, Tries};

/// The rules of one step.
///
/// The default has three retries after 2, 4 and 8 seconds, and 30 seconds per attempt. After an unknown outcome the
/// worker probes, then tries again with the same key, and then stops the saga for a person. Undo is tried ten times,
/// with waits that double from 2 seconds to 5 minutes. If it still fails, the steps before it wait until that is
/// resolved.
///
/// While a [`provider`](Self::provider) cannot be reached ([`StepError::unreachable`](crate::StepError::unreachable)), or
/// a probe has no answer yet, the step waits up to an hour instead: see [`patience`](Self::patience).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a policy does nothing until `SagaStep::policy` returns it"]
pub struct StepPolicy {
    pub(crate) retries: Backoff,
    pub(crate) timeout: Duration,
    pub(crate) idempotent: bool,
    pub(crate) when_unknown: WhenUnknown,
    pub(crate) undo_retries: Backoff,
    pub(crate) holds_undo: bool,
    pub(crate) patience: Backoff,
    pub(crate) provider: Option<Cow<'static, str>>,
}

/// The fate of a saga whose step is still unknown after every retry and every question.
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
            patience: Backoff::doubling(18, Duration::from_secs(2), Duration::from_secs(300)).jittered(),
            provider: None,
        }
    }
}

impl StepPolicy {
    /// Sets how often `execute` is tried again, and after which waits.
    pub fn retries(mut self, retries: Backoff) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how long one attempt may take before its outcome counts as unknown.
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

    /// Sets what to do when the outcome stays unknown.
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

    /// Sets how often `compensate` is tried again, and after which waits.
    pub fn undo_retries(mut self, retries: Backoff) -> Self {
        self.undo_retries = retries;
        self
    }

    /// Sets how often, and after which waits, a provider that cannot be reached is called again, and a question is
    /// asked again to which a probe has no answer yet: the question itself failed, or it was answered by
    /// [`NotSeenYet`](crate::Probe::NotSeenYet). Unless set, 18 waits that double from 2 seconds up to 5 minutes, which
    /// is an hour. It counts for `execute`, for `probe`, for an undo whose provider cannot be reached, and for a local step
    /// that cannot use its database: one without a policy of its own begins with 50 ms. When it is
    /// over the tries follow that [`retries`](Self::retries) or [`undo_retries`](Self::undo_retries) have left.
    ///
    /// A saga that waits for longer than a few seconds is not held in memory, and the row of its step says for whom it
    /// waits. In the end it turns back if nothing can have happened, and is stuck if something can.
    pub fn patience(mut self, patience: Backoff) -> Self {
        self.patience = patience;
        self
    }

    /// The name of the provider that this step calls. Steps of one provider share a limit of calls at the same time
    /// ([`provider_limit`](crate::OrchestratorBuilder::provider_limit)), so that one that hangs does not take the places
    /// of all sagas; and while it cannot be reached only one saga of a worker tries, and the others wait without memory.
    ///
    /// A step that runs another saga should name none: the other one may need the place.
    pub fn provider(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.provider = Some(name.into());
        self
    }

    pub(crate) fn longest_wait(&self) -> Duration {
        self.retries.longest().max(self.undo_retries.longest()).max(self.patience.longest())
    }
}

/// A saga that waits is looked at after this time at the latest.
pub(crate) const FARTHEST: Duration = Duration::from_secs(60 * 60);

/// A store takes an end of a wait that is further away for the work of a clock that was wrong, and hands the saga out. It
/// is more than [`FARTHEST`], because the clock that a claim reads may be a moment behind the one of the write.
pub(crate) const FARTHEST_BELIEVED: Duration = Duration::from_secs(61 * 60);

/// No wait is longer: every store can add it to its clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A bounded schedule of waits: first, doubled, up to a cap. Exact, unless it is [`jittered`](Self::jittered). A wait
/// above 100 years is one of 100 years.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a schedule does nothing by itself"]
pub struct Backoff {
    times: u32,
    first: Duration,
    cap: Duration,
    jitter: bool,
    /// The waits, if another schedule chose them.
    listed: Option<Arc<[Duration]>>,
}

impl Backoff {
    /// `times` retries; the first after `first`, each wait twice the one before, none above `cap`.
    pub fn doubling(times: u32, first: Duration, cap: Duration) -> Self {
        Self { times, first, cap, jitter: false, listed: None }
    }

    /// `times` retries with the same wait before each.
    pub fn constant(times: u32, wait: Duration) -> Self {
        Self::doubling(times, wait, wait)
    }

    /// No retry at all.
    pub fn never() -> Self {
        Self::doubling(0, Duration::ZERO, Duration::ZERO)
    }

    /// At most `times` retries, after the waits of a schedule of the crate `backoff`.
    ///
    /// The schedule is asked here, once, and not for each failure: a saga that another worker takes over goes on by the
    /// number of its failures, which is all that is stored. Therefore `max_elapsed_time` has no effect, and a random
    /// part is drawn here; [`jittered`](Self::jittered) spreads sagas.
    ///
    /// The crate `backoff` is not maintained (RUSTSEC-2025-0012, RUSTSEC-2024-0384); the feature is for users who have
    /// its schedules already.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use backoff::ExponentialBackoffBuilder;
    /// use probity_saga::{Backoff, StepPolicy};
    ///
    /// let mut schedule = ExponentialBackoffBuilder::new()
    ///     .with_initial_interval(Duration::from_secs(1))
    ///     .with_multiplier(3.0)
    ///     .with_randomization_factor(0.0)
    ///     .build();
    /// let retries = Backoff::from_backoff(3, &mut schedule);
    /// let waits: Vec<_> = (1..=4).map(|failures| retries.wait_after(failures).map(|wait| wait.as_secs())).collect();
    /// assert_eq!(waits, [Some(1), Some(3), Some(9), None]);
    /// let policy = StepPolicy::default().retries(retries);
    /// # let _ = policy;
    /// ```
    #[cfg(feature = "backoff")]
    pub fn from_backoff(times: u32, schedule: &mut dyn backoff::backoff::Backoff) -> Self {
        /// More tries than a person will wait for, and no more memory than a page.
        const MOST: u32 = 1000;
        schedule.reset();
        let waits = (0..times.min(MOST)).map_while(|_| schedule.next_backoff());
        let listed: Arc<[Duration]> = waits.map(|wait| wait.min(LONGEST)).collect();
        let times = u32::try_from(listed.len()).unwrap_or(MOST);
        let cap = listed.iter().max().copied().unwrap_or_default();
        Self { listed: Some(listed), ..Self::doubling(times, Duration::ZERO, cap) }
    }

    /// Spreads each wait over four fifths to six fifths of its length, by the id of the saga: what failed together does
    /// not come back together.
    pub fn jittered(mut self) -> Self {
        self.jitter = true;
        self
    }

    /// The wait after `failures` failed attempts of the saga with this seed. The same saga waits as long on each worker.
    pub(crate) fn spread(&self, failures: u32, seed: u64) -> Option<Duration> {
        let wait = self.wait_after(failures)?;
        if !self.jitter {
            return Some(wait);
        }
        let thousandths = 800 + u32::try_from(mixed(seed ^ u64::from(failures)) % 401).unwrap_or(200);
        Some((wait.saturating_mul(thousandths) / 1000).min(LONGEST))
    }

    fn longest(&self) -> Duration {
        let longest = if self.jitter { self.cap.saturating_mul(6) / 5 } else { self.cap };
        if self.times == 0 { Duration::ZERO } else { longest.min(LONGEST) }
    }

    /// Answers the number of retries in all.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.times
    }

    /// The wait after `failures` failed attempts, or `None` when the schedule is exhausted. Jitter is left out.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Option<Duration> {
        if failures == 0 || failures > self.times {
            return None;
        }
        if let Some(listed) = &self.listed {
            return listed.get(failures as usize - 1).copied();
        }
        let factor = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        Some(self.first.saturating_mul(factor).min(self.cap).min(LONGEST))
    }
}

/// Spreads seeds that are close together (splitmix64).
fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        let a_century = Duration::from_secs(3_153_600_000);
        assert_eq!(Backoff::constant(3, Duration::MAX).wait_after(1), Some(a_century));
    }

    /// Workers of two versions wait as long as each other for the same saga.
    #[test]
    fn seeds_are_spread_as_splitmix64_spreads_them() {
        assert_eq!([mixed(0), mixed(1)], [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1]);
        let schedule = Backoff::constant(1, Duration::from_secs(1000)).jittered();
        assert_eq!(schedule.spread(1, 7), Some(Duration::from_secs(914)));
    }

    #[test]
    fn jitter_spreads_sagas_over_two_fifths_of_a_wait_and_is_the_same_each_time() {
        let schedule = Backoff::constant(1, Duration::from_secs(1000)).jittered();
        let waits: Vec<u64> =
            (0..1000).filter_map(|n| schedule.spread(1, n)).map(|wait| wait.as_secs()).collect();
        assert!(waits.iter().all(|wait| (800..=1200).contains(wait)), "{waits:?}");
        for part in [800..900, 900..1000, 1000..1100, 1100..1201] {
            assert!(waits.iter().filter(|wait| part.contains(*wait)).count() > 150, "{part:?}");
        }
        assert_eq!(schedule.spread(1, 7), schedule.spread(1, 7));
        assert!(Backoff::constant(1, Duration::MAX).jittered().spread(1, 7) <= Some(LONGEST));
    }

    #[cfg(feature = "backoff")]
    #[test]
    fn a_schedule_of_the_backoff_crate_is_asked_once_and_ends() {
        let mut endless = backoff::ExponentialBackoff { randomization_factor: 0.0, ..Default::default() };
        let schedule = Backoff::from_backoff(u32::MAX, &mut endless);
        assert_eq!(schedule.times(), 1000);
        assert_eq!(schedule.wait_after(1), Some(Duration::from_millis(500)));
        assert_eq!(schedule.wait_after(1001), None);
        assert_eq!(schedule.longest(), Duration::from_secs(60));
        assert_eq!(Backoff::from_backoff(3, &mut backoff::backoff::Stop {}).wait_after(1), None);
        assert_eq!(
            Backoff::from_backoff(2, &mut backoff::backoff::Zero {}).wait_after(2),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_schedule_never_overflows() {
        let huge = Backoff::doubling(u32::MAX, Duration::from_secs(2), Duration::from_secs(300));
        assert_eq!(huge.wait_after(4_000_000_000), Some(Duration::from_secs(300)));
    }
}
