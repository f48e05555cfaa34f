//! The report of an exploration.

use std::fmt;

use super::run::Ran;
use super::schedule::{Schedule, Seen};
use super::{Broken, Explored};
use crate::status::Status;

/// The schedules that were explored, by their ends. Its text says all of it, with the first schedule that left the saga
/// to a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// The number of schedules that ran.
    pub schedules: usize,
    /// The number that ended with every step done.
    pub completed: usize,
    /// The number that ended with every effect undone.
    pub compensated: usize,
    /// The number that ended before a person, stuck or paused: see [`first_waiting`](Self::first_waiting). For some
    /// sagas that is right. A pivot without a probe, a step that must not run twice and has none, and an undo that can
    /// be refused all end there when they have to.
    pub waiting: usize,
    /// The number that a person closed.
    pub aborted: usize,
    /// The first schedule that ended before a person.
    pub first_waiting: Option<Waiting>,
}

/// A schedule that ended before a person, and what that person reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The faults of the schedule, and their places.
    pub schedule: String,
    /// Stuck or paused.
    pub status: Status,
    /// The reason that the saga itself gives.
    pub reason: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, completed, compensated, waiting, aborted, first_waiting } = self;
        write!(
            f,
            "{schedules} schedules: {completed} completed, {compensated} compensated, {aborted} closed by a person, \
             {waiting} waiting for one"
        )?;
        match first_waiting {
            Some(first) => write!(f, "; the first: {first}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), when {}", self.status, self.reason, self.schedule)
    }
}

impl Report {
    pub(super) fn add(&mut self, schedule: &Schedule, ran: Ran) -> Result<Seen, Explored> {
        let reached = if ran.reached.is_empty() {
            String::new()
        } else {
            format!(" (met {})", ran.reached.join(", then "))
        };
        let said = || format!("{schedule}{reached}");
        if let Some(promise) = ran.broken {
            return Err(Broken { promise, schedule: said() }.into());
        }
        self.schedules += 1;
        match ran.status {
            Some(Status::Completed) => self.completed += 1,
            Some(Status::Compensated) => self.compensated += 1,
            Some(Status::Aborted) => self.aborted += 1,
            Some(status) => {
                self.waiting += 1;
                let reason = ran.journal.and_then(|journal| journal.instance.reason).unwrap_or_default();
                self.first_waiting.get_or_insert_with(|| Waiting { schedule: said(), status, reason });
            }
            None => self.waiting += 1,
        }
        Ok(ran.seen)
    }
}
