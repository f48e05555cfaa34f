//! What this process may believe about its own lease. Local time only ever makes it give up
//! sooner: the store's clock decides.
//!
//! Invariant: [`Lease::allows`] is false from two thirds of the lease after the *sending* of the
//! last good beat, and for everything that was begun before a lapse.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Shared by all tasks of one worker.
#[derive(Clone)]
pub(crate) struct Lease {
    ttl: Duration,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy)]
struct State {
    last_beat: Option<Instant>,
    /// Raised when the lease lapsed: whatever was owned before may have other owners now.
    era: u64,
    revoked: bool,
}

/// The era in which a saga was last known to be this worker's: read before the store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Era(u64);

/// A lapse: stop, forget the saga, write nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Lease {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self { ttl, state: Arc::new(watch::Sender::new(State { last_beat: None, era: 0, revoked: false })) }
    }

    pub(crate) fn era(&self) -> Era {
        Era(self.state.borrow().era)
    }

    /// After a silence longer than the lease even a held one is a lapse: whoever judged it meanwhile,
    /// on an older view of the workers, may have claimed what was owned.
    pub(crate) fn held(&self, sent: Instant) {
        self.state.send_modify(|state| {
            if state.last_beat.is_some_and(|beat| beat.elapsed() >= self.ttl) {
                state.era += 1;
            }
            state.last_beat = state.last_beat.max(Some(sent));
        });
    }

    pub(crate) fn lapsed(&self, sent: Instant) {
        self.state.send_modify(|state| {
            state.last_beat = Some(sent);
            state.era += 1;
        });
    }

    /// This worker ends: nothing it drives may go on.
    pub(crate) fn revoke(&self) {
        self.state.send_modify(|state| {
            state.era += 1;
            state.revoked = true;
        });
    }

    /// Waits until an effect may start. During an outage of the store that is until the next beat.
    pub(crate) async fn allows(&self, era: Era) -> Result<(), Lost> {
        if let Some(answer) = self.answer(era, *self.state.borrow()) {
            return answer;
        }
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if let Some(answer) = self.answer(era, state) {
                return answer;
            }
            if changes.changed().await.is_err() {
                return Err(Lost);
            }
        }
    }

    /// None: not yet.
    fn answer(&self, era: Era, state: State) -> Option<Result<(), Lost>> {
        let State { last_beat, era: now, revoked } = state;
        if revoked || now != era.0 {
            return Some(Err(Lost));
        }
        last_beat.is_some_and(|beat| beat.elapsed() < self.ttl * 2 / 3).then_some(Ok(()))
    }

    /// Whether this worker has ended. A mere lapse does not forbid a write: as long as nobody claimed
    /// the saga its epoch is ours, and if somebody did, the store refuses it.
    pub(crate) fn is_revoked(&self) -> bool {
        self.state.borrow().revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_held_beat_within_the_lease_keeps_the_era() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let era = lease.era();
        tokio::time::advance(TTL - Duration::from_millis(1)).await;
        lease.held(Instant::now());
        assert_eq!(lease.era(), era);
        assert_eq!(lease.allows(era).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_beat_after_a_silence_longer_than_the_lease_is_a_lapse() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let era = lease.era();
        tokio::time::advance(TTL).await;
        lease.held(Instant::now());
        assert_eq!(lease.allows(era).await, Err(Lost));
        assert_eq!(lease.allows(lease.era()).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_to_an_older_beat_does_not_shorten_the_lease() {
        let lease = Lease::new(TTL);
        let older = Instant::now();
        tokio::time::advance(TTL / 3).await;
        lease.lapsed(Instant::now());
        lease.held(older);
        tokio::time::advance(TTL / 2).await;
        assert_eq!(lease.allows(lease.era()).await, Ok(()));
    }
}
