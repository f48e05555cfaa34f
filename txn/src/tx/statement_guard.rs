//! Remembers the first failure of the statements, abandoned ones, and the time between them.
//!
//! Invariant: a transaction whose [`StatementGuard`] is not clean is never committed.

use std::time::Duration;

use tokio::time::Instant;

use crate::classify::Class;
use crate::error::RollbackReason;
use crate::failure::Failure;

/// The record of one attempt.
#[derive(Debug)]
pub(crate) struct StatementGuard {
    /// The first failure that no scope has absorbed.
    poisoned: Option<RollbackReason>,
    /// The time when the last statement ended; the transaction's own BEGIN counts as one.
    idle_since: Instant,
    between: Duration,
    /// The time between two statements after which the server has ended the session.
    idle_max: Option<Duration>,
}

impl StatementGuard {
    pub(crate) fn new(idle_max: Option<Duration>) -> Self {
        Self { poisoned: None, idle_since: Instant::now(), between: Duration::ZERO, idle_max }
    }

    /// Gives the reason why this transaction cannot be committed, if there is one.
    pub(crate) fn poison_reason(&self) -> Option<&RollbackReason> {
        self.poisoned.as_ref()
    }

    /// Hands the reason over: to the end of the attempt, or to a scope that may absorb it.
    pub(crate) fn take_poison(&mut self) -> Option<RollbackReason> {
        self.poisoned.take()
    }

    /// Makes the transaction uncommittable. The first reason stays: it explains the later ones.
    pub(crate) fn poison(&mut self, reason: RollbackReason) {
        self.poisoned.get_or_insert(reason);
    }

    /// Gives the time spent between the statements so far.
    pub(crate) fn time_between(&self) -> Duration {
        self.between + self.idle_since.elapsed()
    }

    /// Marks the start of a statement.
    pub(crate) fn start(&mut self) -> RunningStatement<'_> {
        let idle = self.idle_since.elapsed();
        self.between += idle;
        let overslept = self.idle_max.is_some_and(|max| idle >= max);
        RunningStatement { guard: self, answered: false, overslept }
    }
}

/// A statement that was sent. Dropped without an answer it poisons the transaction, because its effect is
/// unknown.
#[derive(Debug)]
pub(crate) struct RunningStatement<'w> {
    guard: &'w mut StatementGuard,
    answered: bool,
    /// The server had time to end the session before it was sent.
    overslept: bool,
}

impl RunningStatement<'_> {
    /// The statement was answered, or its reader has seen all it wants of the answer.
    pub(crate) fn record_answer(&mut self) {
        self.answered = true;
    }

    /// The statement failed.
    pub(crate) fn record_failure(&mut self, failure: Failure) {
        self.answered = true;
        // A proxy or a reset connection can lose the server's reason for ending the session.
        let failure = match failure.class() {
            Class::ConnectionLost if self.overslept => failure.with_class(Class::SessionTimeout),
            _ => failure,
        };
        self.guard.poison(RollbackReason::StatementFailed(failure));
    }
}

impl Drop for RunningStatement<'_> {
    fn drop(&mut self) {
        self.guard.idle_since = Instant::now();
        if !self.answered {
            self.guard.poison(RollbackReason::StatementAbandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_between_statements_is_counted() {
        let mut guard = StatementGuard::new(None);
        tokio::time::advance(Duration::from_millis(30)).await;
        let mut running = guard.start();
        tokio::time::advance(Duration::from_secs(5)).await;
        running.record_answer();
        drop(running);
        tokio::time::advance(Duration::from_millis(12)).await;
        assert_eq!(guard.time_between(), Duration::from_millis(42));
    }

    #[test]
    fn the_first_reason_is_kept() {
        let mut guard = StatementGuard::new(None);
        drop(guard.start());
        guard.start().record_failure(Failure::local(Class::Other, "a later failure"));
        assert_eq!(guard.poison_reason(), Some(&RollbackReason::StatementAbandoned));
    }
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_lost_after_too_long_a_pause_was_ended_by_the_server() {
        for (pause, class) in [(4, Class::ConnectionLost), (5, Class::SessionTimeout)] {
            let mut guard = StatementGuard::new(Some(Duration::from_secs(5)));
            tokio::time::advance(Duration::from_secs(pause)).await;
            guard.start().record_failure(Failure::local(Class::ConnectionLost, "connection reset by peer"));
            let Some(RollbackReason::StatementFailed(failure)) = guard.take_poison() else {
                panic!("it failed")
            };
            assert_eq!(failure.class(), class);
        }
    }
}
