//! Bulkheads: the number of concurrent calls of a provider, and the pauses while it is away.
//!
//! Invariant: a provider that hangs or is away takes no more than its own share of the permits of this worker. A saga
//! whose call is refused waits without memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::metrics;
use crate::step::StepError;

/// The number of calls in a row that did not reach a provider and close the way to it.
const CLOSES_AFTER: u32 = 3;

/// The longest pause of a closed way, in first pauses.
const LONGEST_PAUSE: u32 = 30;

/// The time for which a call waits here for its turn, and the one after which its saga comes again.
const TURN: Duration = Duration::from_secs(1);
const NEXT_TURN: Duration = Duration::from_secs(5);

/// All that steps name.
pub(crate) struct Providers {
    limits: BTreeMap<String, usize>,
    usual: usize,
    /// The time for which a provider is not called before one call tries it. It doubles after each failed try.
    first_pause: Duration,
    known: Mutex<HashMap<String, Arc<Provider>>>,
}

struct Provider {
    name: String,
    turns: Arc<Semaphore>,
    /// The permits of calls that wait for a turn: a quarter as many as may have one, because they hold up permits of sagas.
    queue: Semaphore,
    first_pause: Duration,
    way: Mutex<Way>,
}

/// The state of the way to a provider: calls go through, or it is closed.
#[derive(Default)]
struct Way {
    /// The number of calls in a row that did not reach it.
    in_vain: u32,
    closed_until: Option<Instant>,
    /// A call is trying whether it is back.
    trying: bool,
}

/// The reason for which no call is made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// It could not be reached a moment ago; a call tries after this time.
    Away(String, Duration),
    /// All calls that it may have are under way; it may be this saga's turn after this time.
    Full(String, Duration),
}

/// The right to call a provider once.
pub(super) struct Turn {
    of: Option<(Arc<Provider>, OwnedSemaphorePermit)>,
    /// This call shows whether the provider is back.
    tries: bool,
}

impl Providers {
    pub(super) fn new(limits: BTreeMap<String, usize>, in_flight: usize, first_pause: Duration) -> Self {
        Self { limits, usual: in_flight.div_ceil(2), first_pause, known: Mutex::default() }
    }

    /// A step that names no provider may always call.
    pub(super) async fn turn(&self, name: Option<&str>) -> Result<Turn, Closed> {
        let Some(name) = name else { return Ok(Turn { of: None, tries: false }) };
        let provider = self.of(name);
        if let Some(left) = provider.left() {
            return Err(Closed::Away(name.into(), left));
        }
        let Some(turn) = provider.take_turn().await else {
            return Err(Closed::Full(name.into(), NEXT_TURN));
        };
        let tries = match provider.way().enter(self.first_pause) {
            Ok(tries) => tries,
            Err(left) => return Err(Closed::Away(name.into(), left)),
        };
        Ok(Turn { of: Some((provider, turn)), tries })
    }

    /// Says if a call would have to wait, or would be turned away.
    pub(super) fn is_closed(&self, name: Option<&str>) -> bool {
        let Some(provider) = name.map(|name| self.of(name)) else { return false };
        provider.turns.available_permits() == 0 || provider.left().is_some()
    }

    fn of(&self, name: &str) -> Arc<Provider> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(provider) = known.get(name) {
            return Arc::clone(provider);
        }
        let limit = self.limits.get(name).copied().unwrap_or(self.usual);
        let (turns, queue) = (Arc::new(Semaphore::new(limit)), Semaphore::new(limit.div_ceil(4)));
        let (name, first_pause) = (name.to_owned(), self.first_pause);
        let provider =
            Arc::new(Provider { name: name.clone(), turns, queue, first_pause, way: Mutex::default() });
        known.insert(name, Arc::clone(&provider));
        provider
    }
}

impl Closed {
    pub(super) fn left(&self) -> Duration {
        let (Self::Away(_, left) | Self::Full(_, left)) = self;
        *left
    }
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(name, _) => write!(f, "waits for {name}: it could not be reached"),
            Self::Full(name, _) => write!(f, "waits for {name}: as many calls as it may have are under way"),
        }
    }
}

impl Way {
    /// The time for which no call is let through.
    fn left(&self, first_pause: Duration) -> Option<Duration> {
        let left = self.closed_until?.saturating_duration_since(Instant::now());
        if left.is_zero() { self.trying.then_some(first_pause) } else { Some(left) }
    }

    /// This call tries if the provider is back.
    fn enter(&mut self, first_pause: Duration) -> Result<bool, Duration> {
        if let Some(left) = self.left(first_pause) {
            return Err(left);
        }
        self.trying = self.closed_until.is_some();
        Ok(self.trying)
    }

    /// True if the way was open.
    fn fails(&mut self, first_pause: Duration) -> bool {
        let was_open = self.closed_until.is_none();
        if was_open || self.trying {
            self.in_vain += 1;
        }
        if let Some(beyond) = self.in_vain.checked_sub(CLOSES_AFTER).filter(|_| was_open || self.trying) {
            let times = 1_u32.checked_shl(beyond).unwrap_or(u32::MAX).min(LONGEST_PAUSE);
            self.closed_until = Some(Instant::now() + first_pause.saturating_mul(times));
        }
        self.trying = false;
        was_open && self.closed_until.is_some()
    }
}

impl Provider {
    async fn take_turn(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let _queues = self.queue.try_acquire().ok()?;
        timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()
    }

    fn left(&self) -> Option<Duration> {
        self.way().left(self.first_pause)
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reached(&self) {
        let was = std::mem::take(&mut *self.way());
        if was.closed_until.is_some() {
            tracing::info!(provider = self.name, "the provider can be reached again");
            self.show(false);
        }
    }

    fn is_missed(&self) {
        if self.way().fails(self.first_pause) {
            tracing::warn!(provider = self.name, "the provider cannot be reached; its sagas wait");
            self.show(true);
        }
    }

    fn show(&self, away: bool) {
        metrics::provider_away(self.name.clone(), away);
    }
}

impl Turn {
    /// Takes what the call said about the provider. An unknown outcome says nothing.
    pub(super) fn observe(&mut self, error: Option<&StepError>) {
        let Some((provider, _)) = &self.of else { return };
        let missed = match error {
            Some(StepError::Unknown(_)) => return,
            Some(StepError::Retryable(retry)) => retry.provider().is_some_and(|name| name == provider.name),
            _ => false,
        };
        self.tries = false;
        if missed { provider.is_missed() } else { provider.is_reached() }
    }
}

impl Drop for Turn {
    /// A try without a result counts as failed.
    fn drop(&mut self) {
        if let (true, Some((provider, _))) = (self.tries, &self.of) {
            provider.is_missed();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const BANK: Option<&str> = Some("bank");
    const FIRST_PAUSE: Duration = Duration::from_secs(1);

    fn refused() -> StepError {
        StepError::unreachable("bank", "connection refused")
    }

    async fn miss(providers: &Providers) {
        providers.turn(BANK).await.unwrap().observe(Some(&refused()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_missed_three_times_is_tried_by_one_call_after_growing_pauses() {
        let providers = Providers::new(BTreeMap::new(), 100, FIRST_PAUSE);
        for _ in 0..CLOSES_AFTER {
            assert!(!providers.is_closed(BANK));
            miss(&providers).await;
        }
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let closed = providers.turn(BANK).await.err();
            assert_eq!(closed, Some(Closed::Away("bank".into(), Duration::from_secs(pause))));
            advance(Duration::from_secs(pause)).await;
            let mut tries = providers.turn(BANK).await.unwrap();
            assert!(providers.turn(BANK).await.is_err(), "two try at once");
            tries.observe(Some(&refused()));
        }
        advance(FIRST_PAUSE * LONGEST_PAUSE).await;
        providers.turn(BANK).await.unwrap().observe(None);
        assert!(providers.turn(BANK).await.is_ok() && !providers.is_closed(BANK));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_try_counts_as_a_miss_of_its_own_provider_only() {
        let providers = Providers::new(BTreeMap::new(), 100, FIRST_PAUSE);
        for _ in 0..CLOSES_AFTER {
            miss(&providers).await;
        }
        advance(FIRST_PAUSE).await;
        drop(providers.turn(BANK).await.unwrap());
        assert!(providers.is_closed(BANK));
        assert!(!providers.is_closed(Some("channel")) && !providers.is_closed(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_beyond_the_limit_waits_briefly_and_is_refused() {
        let providers = Providers::new(BTreeMap::from([("bank".into(), 1)]), 100, FIRST_PAUSE);
        let first = providers.turn(BANK).await.unwrap();
        let closed = providers.turn(BANK).await.err();
        assert_eq!(closed, Some(Closed::Full("bank".into(), NEXT_TURN)));
        drop(first);
        assert!(providers.turn(BANK).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_of_a_closed_way_grow_from_the_first_to_thirty_times_as_long() {
        let first = Duration::from_millis(10);
        let providers = Providers::new(BTreeMap::new(), 100, first);
        for _ in 0..CLOSES_AFTER {
            miss(&providers).await;
        }
        for times in [1, 2, 4, 8, 16, 30, 30] {
            let closed = providers.turn(BANK).await.err();
            assert_eq!(closed, Some(Closed::Away("bank".into(), first * times)));
            advance(first * times).await;
            miss(&providers).await;
        }
    }
}
