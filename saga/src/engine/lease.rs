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
    /// When the store was last seen to be away or slow.
    trouble: Option<Instant>,
}

/// The era in which a saga was last known to be this worker's: read before the store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Era(u64);

/// A lapse: stop, forget the saga, write nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Lease {
    pub(crate) fn new(ttl: Duration) -> Self {
        let state = State { last_beat: None, era: 0, revoked: false, trouble: None };
        Self { ttl, state: Arc::new(watch::Sender::new(state)) }
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
                state.trouble = Some(Instant::now());
            }
            state.last_beat = state.last_beat.max(Some(sent));
        });
    }

    pub(crate) fn lapsed(&self, sent: Instant) {
        self.state.send_modify(|state| {
            // The first beat of a worker is a lapse of nothing.
            if state.last_beat.is_some() {
                state.trouble = Some(Instant::now());
            }
            state.last_beat = Some(sent);
            state.era += 1;
        });
    }

    /// A beat failed, or was answered late.
    pub(crate) fn struggles(&self) {
        self.state.send_modify(|state| state.trouble = Some(Instant::now()));
    }

    /// Whether the store was away a moment ago. Other workers, which may have had the same trouble, then get the length
    /// of a lease to show that they live and to write what they hold, before anything is taken from them.
    pub(crate) fn settles(&self) -> bool {
        self.state.borrow().trouble.is_some_and(|trouble| trouble.elapsed() < self.ttl)
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
        let State { last_beat, era: now, revoked, trouble: _ } = state;
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
