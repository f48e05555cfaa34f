//! The knowledge about a step between its tries.

use std::time::Duration;

use super::{after, effects_in, without_effects};
use crate::core::{Finding, Undoing};
use crate::engine::providers::Closed;
use crate::error::StoreError;
use crate::policy::{Failure, StepPolicy, Tries};
use crate::step::Retry;

/// The beginning of the stored text of a saga that waits for a provider. A worker that takes the saga up reads by it
/// that it waited.
const WAITS: &str = "waits for ";

const UNSEEN: &str = "not seen on the other side";

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
    /// The effects that attempts which may have happened have stated.
    pub(super) stated: Option<String>,
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
        let stated = noted.as_deref().filter(|_| maybe).and_then(effects_in);
        Self { policy, maybe, patient: false, error, stated, noted, tries, last, fresh: true, asked }
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
        self.with_effects(self.error.clone().unwrap_or_else(|| UNSEEN.into()))
    }

    /// Notes the effects that an attempt stated, beside those of attempts before it. A step that does the same again states
    /// the same.
    pub(super) fn states(&mut self, effects: Option<String>) {
        let has = |all: &str, some: &str| format!(", {all}, ").contains(&format!(", {some}, "));
        self.stated = match (self.stated.take(), effects) {
            (Some(before), Some(new)) if has(&before, &new) => Some(before),
            (Some(before), Some(new)) if has(&new, &before) => Some(new),
            (Some(before), Some(new)) => Some(format!("{before}, {new}")),
            (before, new) => before.or(new),
        };
    }

    /// Adds the effects that attempts stated. Those that the text begins with are among them.
    fn with_effects(&self, text: String) -> String {
        match &self.stated {
            Some(effects) => after(without_effects(&text), effects),
            None => text,
        }
    }

    /// The end of the tries. Every text that leaves the effect open names the effects that were stated.
    pub(super) fn found(&self, finding: Finding) -> (Finding, u32) {
        let finding = match finding {
            Finding::Unknown(reason, choice) => Finding::Unknown(self.with_effects(reason), choice),
            Finding::Fatal { reason, ran } => Finding::Fatal { reason: self.with_effects(reason), ran },
            finding => finding,
        };
        (finding, self.failures())
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
        // The last word that was stored still holds: no try was made since.
        if self.fresh && self.noted.is_some() {
            return self.noted.clone();
        }
        let error = self.error.clone();
        if self.last == Failure::Definite {
            return error.or_else(|| self.noted.clone()).map(|error| self.with_effects(error));
        }
        let error = error.unwrap_or_else(|| UNSEEN.into());
        match error.strip_prefix(WAITS).and_then(|waits| waits.split_once(": ")) {
            Some((whom, why)) => Some(format!("{WAITS}{whom}: {}", self.with_effects(why.into()))),
            None => {
                let whom = self.policy.provider.as_deref().unwrap_or("an answer");
                Some(format!("{WAITS}{whom}: {}", self.with_effects(error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_up<'p>(policy: &'p StepPolicy, noted: &str) -> Known<'p> {
        let away = waited(Some(noted));
        let tries = Tries::resumed(policy.retries.clone(), policy.patience.clone(), 3, away, 7);
        Known::new(policy, true, tries, Some(noted.into()))
    }

    #[test]
    fn a_saga_that_is_left_before_its_first_try_keeps_the_text_that_was_stored() {
        for noted in ["waits for bank: refused", "busy"] {
            assert_eq!(taken_up(&StepPolicy::default(), noted).told().as_deref(), Some(noted));
        }
    }

    #[test]
    fn an_effect_that_is_stated_again_is_named_once() {
        let policy = StepPolicy::default();
        let mut known = taken_up(&policy, "busy");
        for (stated, expected) in [
            ("hold h-1", "hold h-1"),
            ("hold h-1, charge c-1", "hold h-1, charge c-1"),
            ("hold h-1", "hold h-1, charge c-1"),
            ("charge c-1", "hold h-1, charge c-1"),
            ("charge c-10", "hold h-1, charge c-1, charge c-10"),
            ("charge c-1", "hold h-1, charge c-1, charge c-10"),
        ] {
            known.states(Some(stated.into()));
            assert_eq!(known.stated.as_deref(), Some(expected), "after {stated}");
        }
    }

    #[test]
    fn a_failure_after_a_take_over_names_the_provider_and_the_effects_of_before() {
        let noted = "waits for bank: after an effect that was acknowledged (c-1): refused";
        let policy = StepPolicy::default().provider("bank");
        let mut known = taken_up(&policy, noted);
        known.error = Some("no answer".into());
        let _wait = known.pause(Failure::Away);
        let expected = "waits for bank: after an effect that was acknowledged (c-1): no answer";
        assert_eq!(known.told().as_deref(), Some(expected));
    }
}
