//! Waits of a saga, and the reason for which each ends.
//!
//! Invariant: after a lapse no step begins before the store has taken a write under this driver's epoch.

use std::time::Duration;

use super::{Driver, Gone};
use crate::core::{Finding, Next, Undoing};
use crate::policy::FARTHEST;
use crate::status::{Status, StepStatus};

/// The part of a wait that is over by the time that it is written.
pub(super) const SOON: Duration = Duration::from_secs(1);

impl Driver<'_> {
    /// Waits until an effect may start. False after a lapse: the saga's own row is then written under our epoch, which
    /// the store refuses if another worker took it, and the loop looks again.
    pub(super) async fn is_ours(&mut self) -> Result<bool, Gone> {
        let allowed = self.engine.lease.allows(self.term).await;
        if self.engine.lease.is_revoked() {
            return Err(Gone::Lost);
        }
        if allowed.is_err() {
            let change = self.state.change(&self.saga.shape, &[]);
            self.write(self.state.status, change, None).await?;
        }
        Ok(allowed.is_ok())
    }

    /// The time for which a saga that waits is given up. It is not given up if it goes on at once: after a lapse, or
    /// because an operator asked for something; with `turns`, also if that is to turn back.
    pub(super) fn released_for(&self, retry_in: Duration, turns: bool) -> Option<Duration> {
        let asked = self.engine.requests.stands(self.journal.instance.id, turns);
        (!asked && !retry_in.is_zero()).then_some(retry_in)
    }

    /// Says if a request to turn back still means something.
    pub(super) fn turns(&self) -> bool {
        self.state.status == Status::InProgress
    }

    /// A wait longer than any that a store believes is made in parts: the saga was handed out before its next try is
    /// due, and is given up again.
    pub(super) async fn goes_on_waiting(&mut self, next: Next) -> Result<(), Gone> {
        let (at, undoes) = match next {
            Next::Execute { at, .. } | Next::Announce { at } => (at, false),
            Next::Undo { at, .. } => (at, true),
            _ => return Ok(()),
        };
        let Some(row) = &self.state.rows[at] else { return Ok(()) };
        let longest = self.saga.steps[at].policy().longest_wait();
        let retry_in = row.retry_in.unwrap_or_default().min(longest);
        if longest <= FARTHEST || retry_in < SOON {
            return Ok(());
        }
        let (from, error) = (self.state.status, row.error.clone());
        let change = if undoes {
            let later = Undoing::Later { failures: row.undo_retries, error, retry_in };
            self.state.undone(&self.saga.shape, at, later)
        } else {
            let (maybe, failures) = (row.status == StepStatus::Unknown, row.retries);
            let later = Finding::Later { maybe, error, retry_in };
            self.state.executed(&self.saga.shape, at, failures, later)
        };
        self.write_or_park(from, change, Some(retry_in)).await
    }
}
