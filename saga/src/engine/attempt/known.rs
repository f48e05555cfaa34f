//! The knowledge about a step between its tries.

use std::time::Duration;

use crate::engine::providers::Closed;
use crate::error::StoreError;
use crate::machine::{Finding, Undoing};
use crate::policy::{Failure, StepPolicy, Tries};
use crate::step::Retry;

/// The beginning of the stored text of a saga that waits for a provider. A worker that takes the saga up reads by it
/// that it waited.
const WAITS: &str = "waits for ";

/// Says if this text is that of a step that waited for a provider.
pub(super) fn waited(error: Option<&str>) -> bool {
    error.is_some_and(|error| error.starts_with(WAITS))
}

pub(crate) struct Known<'p> {
    pub(super) policy: &'p StepPolicy,
    /// An attempt may have had its effect.
    pub(super) maybe: bool,
    /// There is a probe to ask what became of it, which may still answer.
    pub(super) patient: bool,
    pub(super) error: Option<String>,
    /// The text that was stored of the step before.
    noted: Option<String>,
    tries: Tries,
    last: Failure,
    /// No try failed since this worker took it up.
    pub(super) fresh: bool,
    /// The pause that the other side asked for.
    asked: Duration,
}

impl<'p> Known<'p> {
    pub(crate) fn new(policy: &'p StepPolicy, maybe: bool, tries: Tries, noted: Option<String>) -> Self {
        let (last, asked) = (Failure::Definite, Duration::ZERO);
        // The saga still waits for the provider that its row names.
        let waits = noted.as_deref().and_then(|noted| noted.strip_prefix(WAITS)?.split_once(": "));
        let error = waits.map(|(_whom, why)| why.to_owned());
        Self { policy, maybe, patient: false, error, noted, tries, last, fresh: true, asked }
    }

    pub(crate) fn failures(&self) -> u32 {
        self.tries.failures()
    }

    pub(crate) fn retry(&mut self, retry: &Retry) -> Failure {
        self.error = Some(retry.to_string());
        self.asked = retry.after().unwrap_or_default();
        if retry.provider().is_some() { Failure::Away } else { Failure::Definite }
    }

    /// No call was made.
    pub(super) fn turned_away(&mut self, closed: &Closed) -> Failure {
        (self.error, self.asked) = (Some(closed.to_string()), closed.left());
        Failure::Away
    }

    /// The database of a local step cannot be used, so nothing of it happened.
    pub(crate) fn without_database(&mut self, error: &StoreError) -> Failure {
        self.error = Some(format!("{WAITS}its database: {error}"));
        Failure::Away
    }

    /// The pause before the next try, or `None` if there is none.
    pub(crate) fn pause(&mut self, failure: Failure) -> Option<Duration> {
        (self.last, self.fresh) = (failure, false);
        let asked = std::mem::take(&mut self.asked);
        self.tries.after(failure).map(|pause| pause.max(asked))
    }

    /// The reason that is given when no try is left.
    pub(crate) fn reason(&self) -> String {
        self.error.clone().unwrap_or_else(|| "not seen on the other side".into())
    }

    /// The next try is due later.
    pub(super) fn later(self, retry_in: Duration) -> (Finding, u32) {
        let (maybe, failures) = (self.maybe, self.failures());
        (Finding::Later { maybe, error: self.told(), retry_in }, failures)
    }

    /// The next try of the undo is due later.
    pub(super) fn undo_later(self, retry_in: Duration) -> Undoing {
        let failures = self.failures();
        Undoing::Later { failures, error: self.told(), retry_in }
    }

    /// The text that is stored of the last failure: it also says for whom the saga waits.
    pub(crate) fn told(&self) -> Option<String> {
        if self.last == Failure::Definite || waited(self.error.as_deref()) {
            return self.error.clone().or_else(|| self.noted.clone());
        }
        let whom = self.policy.provider.as_deref().unwrap_or("an answer");
        let error = self.error.as_deref().unwrap_or("not seen on the other side");
        Some(format!("{WAITS}{whom}: {error}"))
    }
}
