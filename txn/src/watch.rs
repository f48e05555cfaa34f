//! What the handle remembers about its statements: the first failure, abandoned ones, and time.
//!
//! Invariant: a transaction whose [`Watch`] is not clean is never committed.

use std::time::Duration;

use tokio::time::Instant;

use crate::classify::{Class, Failure};
use crate::error::Reason;

/// The record of one attempt.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The first failure that no scope has absorbed.
    spoiled: Option<Reason>,
    /// When the last statement ended; the transaction's own BEGIN counts as one.
    idle_since: Instant,
    between: Duration,
    /// After so long between two statements the server has ended the session.
    idle_max: Option<Duration>,
}

impl Watch {
    pub(crate) fn new(idle_max: Option<Duration>) -> Self {
        Self { spoiled: None, idle_since: Instant::now(), between: Duration::ZERO, idle_max }
    }

    /// Why this transaction cannot be committed, if it cannot.
    pub(crate) fn spoiled(&self) -> Option<&Reason> {
        self.spoiled.as_ref()
    }

    /// Hands the reason over: to the end of the attempt, or to a scope that may absorb it.
    pub(crate) fn take_spoiled(&mut self) -> Option<Reason> {
        self.spoiled.take()
    }

    /// Makes the transaction uncommittable. The first reason stays: it explains the later ones.
    pub(crate) fn spoil(&mut self, reason: Reason) {
        self.spoiled.get_or_insert(reason);
    }

    /// Time spent between the statements so far.
    pub(crate) fn between(&self) -> Duration {
        self.between + self.idle_since.elapsed()
    }

    /// Marks the start of a statement.
    pub(crate) fn start(&mut self) -> Running<'_> {
        let idle = self.idle_since.elapsed();
        self.between += idle;
        let overslept = self.idle_max.is_some_and(|max| idle >= max);
        Running { watch: self, answered: false, overslept }
    }
}

/// A statement that was sent. Dropped without an answer it spoils the transaction: nobody knows
/// what it did.
#[derive(Debug)]
pub(crate) struct Running<'w> {
    watch: &'w mut Watch,
    answered: bool,
    /// The server had time to end the session before it was sent.
    overslept: bool,
}

impl Running<'_> {
    /// The statement was answered, or its reader has seen all it wants of the answer.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// The statement failed.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.answered = true;
        // What the server said when it ended the session is lost where a proxy or a reset connection comes between.
        let failure = match failure.class() {
            Class::ConnectionLost if self.overslept => failure.classed(Class::SessionTimeout),
            _ => failure,
        };
        self.watch.spoil(Reason::StatementFailed(failure));
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.watch.idle_since = Instant::now();
        if !self.answered {
            self.watch.spoil(Reason::StatementAbandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_between_statements_is_counted() {
        let mut watch = Watch::new(None);
        tokio::time::advance(Duration::from_millis(30)).await;
        let mut running = watch.start();
        tokio::time::advance(Duration::from_secs(5)).await;
        running.answered();
        drop(running);
        tokio::time::advance(Duration::from_millis(12)).await;
        assert_eq!(watch.between(), Duration::from_millis(42));
    }

    #[test]
    fn the_first_reason_is_kept() {
        let mut watch = Watch::new(None);
        drop(watch.start());
        watch.start().failed(Failure::local(Class::Other, "a later failure"));
        assert_eq!(watch.spoiled(), Some(&Reason::StatementAbandoned));
    }
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_lost_after_too_long_a_pause_was_ended_by_the_server() {
        for (pause, class) in [(4, Class::ConnectionLost), (5, Class::SessionTimeout)] {
            let mut watch = Watch::new(Some(Duration::from_secs(5)));
            tokio::time::advance(Duration::from_secs(pause)).await;
            watch.start().failed(Failure::local(Class::ConnectionLost, "connection reset by peer"));
            let Some(Reason::StatementFailed(failure)) = watch.take_spoiled() else { panic!("it failed") };
            assert_eq!(failure.class(), class);
        }
    }
}
