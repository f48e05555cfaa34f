//! The lease of this worker, as far as the worker may rely on it. Local time can only make it give up sooner: the
//! store's clock decides.
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
    /// Raised when the lease lapsed: the sagas owned before may have other owners now.
    term: u64,
    revoked: bool,
    /// When the store was last seen to be away, or to become slow.
    trouble: Option<Instant>,
    /// The last beat was held, but its answer was late.
    slow: bool,
    /// When the first beat came through in this trouble.
    through: Option<Instant>,
}

/// The most lengths of a lease for which a worker whose beats fail now and then takes nothing over.
const LONGEST_SETTLING: u32 = 10;

impl State {
    /// The store was away, or the lease ran out.
    fn is_troubled(&mut self, ttl: Duration) {
        if self.trouble.is_none_or(|trouble| trouble.elapsed() >= ttl) {
            self.through = None;
        }
        self.trouble = Some(Instant::now());
    }
}

/// The term in which a saga was last known to be this worker's: read before the store was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaseTerm(u64);

/// A lapse: stop, forget the saga, write nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

impl Lease {
    pub(crate) fn new(ttl: Duration) -> Self {
        let state =
            State { last_beat: None, term: 0, revoked: false, trouble: None, slow: false, through: None };
        Self { ttl, state: Arc::new(watch::Sender::new(state)) }
    }

    pub(crate) fn term(&self) -> LeaseTerm {
        LeaseTerm(self.state.borrow().term)
    }

    /// After a silence longer than the lease even a held one is a lapse: another worker that judged it,
    /// on an older view of the workers, may have claimed what was owned.
    pub(crate) fn held(&self, sent: Instant) {
        self.state.send_modify(|state| {
            if state.last_beat.is_some_and(|beat| beat.elapsed() >= self.ttl) {
                state.term += 1;
                state.is_troubled(self.ttl);
                state.through = None;
            }
            // Slow heartbeats within the lease count as trouble once: otherwise a store that is always slow would never let this worker take
            // anything over.
            let slow = sent.elapsed() > self.ttl / 3;
            if slow && !state.slow {
                state.is_troubled(self.ttl);
            }
            state.slow = slow;
            state.through.get_or_insert_with(Instant::now);
            state.last_beat = state.last_beat.max(Some(sent));
        });
    }

    /// Answers whether there was a lease to lapse.
    pub(crate) fn lapsed(&self, sent: Instant) -> bool {
        let mut held = false;
        self.state.send_modify(|state| {
            held = state.last_beat.is_some();
            if held {
                state.is_troubled(self.ttl);
            }
            state.through = Some(Instant::now());
            state.last_beat = Some(sent);
            state.term += 1;
        });
        held
    }

    /// A beat failed.
    pub(crate) fn struggles(&self) {
        self.state.send_modify(|state| state.is_troubled(self.ttl));
    }

    /// Says if the store was away a moment ago. Other workers, which may have had the same trouble, then get the length
    /// of a lease to show that they live and to write what they hold, before anything is taken from them. Trouble that
    /// does not end, while beats come through in between, does not keep this worker from it for ever.
    pub(crate) fn settles(&self) -> bool {
        let state = self.state.borrow();
        let recent = state.trouble.is_some_and(|trouble| trouble.elapsed() < self.ttl);
        recent && state.through.is_none_or(|through| through.elapsed() < self.ttl * LONGEST_SETTLING)
    }

    /// This worker ends: nothing it drives may go on.
    pub(crate) fn revoke(&self) {
        self.state.send_modify(|state| {
            state.term += 1;
            state.revoked = true;
        });
    }

    /// Waits until an effect may start. During an outage of the store that is until the next beat.
    pub(crate) async fn allows(&self, term: LeaseTerm) -> Result<(), Lost> {
        if let Some(answer) = self.answer(term, *self.state.borrow()) {
            return answer;
        }
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if let Some(answer) = self.answer(term, state) {
                return answer;
            }
            if changes.changed().await.is_err() {
                return Err(Lost);
            }
        }
    }

    /// None: not yet.
    fn answer(&self, term: LeaseTerm, state: State) -> Option<Result<(), Lost>> {
        let State { last_beat, term: now, revoked, .. } = state;
        if revoked || now != term.0 {
            return Some(Err(Lost));
        }
        last_beat.is_some_and(|beat| beat.elapsed() < self.ttl * 2 / 3).then_some(Ok(()))
    }

    /// Tells whether this worker has ended. A mere lapse does not forbid a write: as long as no worker claimed
    /// the saga, this worker still has its epoch, and if one did, the store refuses the write.
    pub(crate) fn is_revoked(&self) -> bool {
        self.state.borrow().revoked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_within_the_lease_keeps_the_lease_term() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let term = lease.term();
        tokio::time::advance(TTL - Duration::from_millis(1)).await;
        lease.held(Instant::now());
        assert_eq!(lease.term(), term);
        assert_eq!(lease.allows(term).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_after_a_silence_longer_than_the_lease_is_a_lapse() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let term = lease.term();
        tokio::time::advance(TTL).await;
        lease.held(Instant::now());
        assert_eq!(lease.allows(term).await, Err(Lost));
        assert_eq!(lease.allows(lease.term()).await, Ok(()));
    }

    /// Beats every ten seconds for ten minutes, and the share of them after which the worker may take sagas over.
    async fn free(lease: &Lease, mut beat: impl FnMut(u32)) -> u32 {
        let mut free = 0;
        for n in 0..60 {
            tokio::time::advance(TTL / 3).await;
            beat(n);
            free += u32::from(!lease.settles());
        }
        free
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heartbeats_within_the_lease_count_as_trouble_once() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let late = TTL / 3 + Duration::from_secs(1);
        assert_eq!(free(&lease, |_| lease.held(Instant::now() - late)).await, 57);
        lease.held(Instant::now());
        lease.held(Instant::now() - late);
        assert!(lease.settles(), "it became slow again");
    }

    #[tokio::test(start_paused = true)]
    async fn lasting_trouble_stops_takeovers_for_a_few_leases_only() {
        let lease = Lease::new(TTL);
        lease.lapsed(Instant::now());
        let flickering =
            |n: u32| if n.is_multiple_of(2) { lease.struggles() } else { lease.held(Instant::now()) };
        assert_eq!(free(&lease, flickering).await, 29);
        // A lasting outage still counts as trouble, also after such a time.
        free(&lease, |_| lease.struggles()).await;
        lease.held(Instant::now());
        assert!(lease.settles());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_to_an_older_heartbeat_does_not_shorten_the_lease() {
        let lease = Lease::new(TTL);
        let older = Instant::now();
        tokio::time::advance(TTL / 3).await;
        lease.lapsed(Instant::now());
        lease.held(older);
        tokio::time::advance(TTL / 2).await;
        assert_eq!(lease.allows(lease.term()).await, Ok(()));
    }
}
