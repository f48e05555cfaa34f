//! One step: attempts, questions and waits. This module turns each result into a *known* finding.
//!
//! Invariant: an outcome that is not known is asked about before the step runs again, and a step
//! that must not run twice does not. An attempt that stated an effect never ends as if it had none.

mod find_out;
mod known;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument as _;

use super::lease::{LeaseTerm, Lost};
use super::providers::{Closed, Turn};
use super::{Engine, Stop, nested};
use crate::core::{Finding, Undoing};
use crate::definition::{AnyInput, AnyStep, Saga};
use crate::metrics;
use crate::policy::{Backoff, Failure, StepPolicy, Tries, WhenUnknown};
use crate::record::Document;
use crate::step::context::{Effects, Frame, Operation};
use crate::step::{Evidence, Probe, StepError, whole};
pub(super) use known::Known;

/// Beyond this no limit of time matters, and none overflows.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The reason for which a step is not tried again.
pub(super) const LATE: &str = "the deadline of the saga has passed";

/// Everything an attempt needs, borrowed from the driver for one step.
pub(super) struct Attempts<'a> {
    pub(super) engine: &'a Engine,
    pub(super) saga: &'a Saga,
    pub(super) step: &'a dyn AnyStep,
    pub(super) input: &'a AnyInput,
    pub(super) frame: Frame,
    pub(super) term: LeaseTerm,
    /// No attempt of this step begins after it.
    pub(super) deadline: Option<Instant>,
    /// A request to turn back ends its waits.
    pub(super) turns: bool,
    /// The text that was stored of the last failure.
    pub(super) noted: Option<String>,
}

/// The end of a wait.
#[derive(PartialEq, Eq)]
pub(super) enum Waited {
    Over,
    /// The worker leaves, this long before the end of the wait.
    Leaving(Duration),
    /// No attempt may follow.
    Late,
    /// An operator asked for something, this long before the end of the wait.
    Asked(Duration),
}

/// The result of one try.
enum Once {
    Known(Finding),
    Failed(Failure),
    /// The lease lapsed: the row of the step must say what is known before the next call.
    Lapsed,
}

impl Attempts<'_> {
    /// Runs the step until something is known, or its policy is exhausted.
    pub(super) async fn execute(&self, maybe: bool, failures: u32) -> Result<(Finding, u32), Lost> {
        let policy = self.step.policy();
        let (tries, mut trying) = (self.tries(&policy.retries, &policy, failures), None);
        let mut known = Known::new(&policy, maybe, tries, self.noted.clone());
        loop {
            if self.lapsed().await? {
                return Ok(known.later(Duration::ZERO));
            }
            let turn = self.turn(&policy).await;
            // The lease may have lapsed during the wait for the turn.
            if self.lapsed().await? {
                return Ok(known.later(Duration::ZERO));
            }
            let failure = match turn {
                Ok(turn) => match self.once(&mut known, turn).await? {
                    Once::Known(finding) => return Ok(known.found(finding)),
                    Once::Lapsed => return Ok(known.later(Duration::ZERO)),
                    Once::Failed(failure) => failure,
                },
                // It has not failed.
                Err(closed @ Closed::Full(..)) if known.fresh => {
                    known.turned_away(&closed);
                    return Ok(known.later(closed.left()));
                }
                Err(closed) => known.turned_away(&closed),
            };
            trying.get_or_insert_with(|| self.engine.requests.trying());
            let pause = match known.pause(failure) {
                Some(pause) => pause,
                None => match self.last_word(&mut known, failure).await {
                    Ok(pause) => pause,
                    Err(finding) => return Ok(known.found(finding)),
                },
            };
            match self.wait(pause, &policy).await {
                Waited::Over => {}
                Waited::Leaving(retry_in) | Waited::Asked(retry_in) => return Ok(known.later(retry_in)),
                Waited::Late => {
                    let reason = known.error.take();
                    let reason = reason.map_or_else(|| LATE.into(), |error| format!("{error}; {LATE}"));
                    return Ok(known.found(self.exhausted(&policy, known.maybe, reason).await));
                }
            }
        }
    }

    /// Asks what became of earlier attempts, if there may have been some, and makes the next.
    async fn once(&self, known: &mut Known<'_>, mut turn: Turn) -> Result<Once, Lost> {
        let policy = known.policy;
        let mut may_run = true;
        if known.maybe {
            let asked = self.question(policy).await;
            turn.observe(asked.as_ref().err());
            match asked {
                Ok(Probe::Applied(output)) => return Ok(Once::Known(Finding::Succeeded(output))),
                Ok(Probe::NotApplied) => (known.maybe, known.stated) = (false, None),
                Ok(Probe::NotSeenYet) => (known.patient, may_run) = (true, policy.idempotent),
                Ok(Probe::Unknown) if policy.idempotent => known.patient = false,
                Ok(Probe::Unknown) => {
                    let reason = known.error.take().unwrap_or_else(|| "may have been started before".into());
                    return Ok(Once::Known(Finding::Unknown(reason, policy.when_unknown)));
                }
                // There is a probe to ask, which did not answer.
                Err(error) => {
                    (known.patient, may_run) = (true, policy.idempotent);
                    known.error.get_or_insert_with(|| why(error));
                }
            }
            if self.lapsed().await? {
                return Ok(Once::Lapsed);
            }
        }
        if !may_run {
            return Ok(Once::Failed(Failure::Away));
        }
        let (ran, effects) = self.run_once(policy, known.failures()).await;
        turn.observe(ran.as_ref().err());
        if ran.is_err() {
            known.states(effects.clone());
        }
        Ok(match ran {
            Ok(output) => Once::Known(Finding::Succeeded(output)),
            Err(StepError::Rejected(reason)) => Once::Known(match effects {
                Some(effects) => self.rejected_after(policy, reason, &effects).await,
                None => self.rejected(policy, known.maybe, reason).await,
            }),
            Err(StepError::Fatal(reason)) => Once::Known(Finding::Fatal { reason, ran: true }),
            Err(StepError::Retryable(retry)) => Once::Failed(known.retry(&retry)),
            Err(StepError::Unknown(source)) => {
                (known.maybe, known.error) = (true, Some(whole(&*source)));
                Once::Failed(if known.patient { Failure::Away } else { Failure::Definite })
            }
        })
    }

    /// Asks once more about a step that may have happened when the schedule of failures is over, and for longer if
    /// the probe may still answer.
    async fn last_word(&self, known: &mut Known<'_>, failure: Failure) -> Result<Duration, Finding> {
        let (policy, reason) = (known.policy, known.reason());
        if !known.maybe {
            return Err(Finding::NotApplied(reason));
        }
        let asked = self.question(policy).await;
        match asked {
            Ok(Probe::Applied(output)) => return Err(Finding::Succeeded(output)),
            Ok(Probe::NotApplied) => return Err(Finding::NotApplied(reason)),
            Ok(Probe::Unknown) => return Err(Finding::Unknown(reason, policy.when_unknown)),
            Ok(Probe::NotSeenYet) | Err(_) => known.patient = true,
        }
        let pause = if failure == Failure::Away { None } else { known.pause(Failure::Away) };
        pause.ok_or(Finding::Unknown(reason, policy.when_unknown))
    }

    /// A refusal says what became of this attempt, not of one before it whose answer was lost. Unless the
    /// world says otherwise that one counts as unknown, and is undone as such.
    async fn rejected(&self, policy: &StepPolicy, maybe: bool, reason: String) -> Finding {
        match self.exhausted(policy, maybe, reason).await {
            Finding::Unknown(reason, _) => {
                let reason = format!("{reason} (after an attempt whose outcome is unknown)");
                Finding::Unknown(reason, WhenUnknown::Compensate)
            }
            known => known,
        }
    }

    /// The finding for a rejection after an effect of the same attempt: the effect happened, and the step is to be
    /// undone. A step with an undo is probed on the way back.
    async fn rejected_after(&self, policy: &StepPolicy, reason: String, effects: &str) -> Finding {
        let reason = after(&reason, effects);
        let mut steps = self.saga.shape.steps.iter();
        if steps.any(|step| step.name == self.frame.step && step.undo) {
            return Finding::Unknown(reason, WhenUnknown::Compensate);
        }
        self.rejected(policy, true, reason).await
    }

    /// The last word when no try is left.
    async fn exhausted(&self, policy: &StepPolicy, maybe: bool, reason: String) -> Finding {
        if !maybe {
            return Finding::NotApplied(reason);
        }
        match self.ask(policy).await {
            Probe::Applied(output) => Finding::Succeeded(output),
            Probe::NotApplied => Finding::NotApplied(reason),
            Probe::NotSeenYet | Probe::Unknown => Finding::Unknown(reason, policy.when_unknown),
        }
    }

    /// The last word about a step that may have been started, when the deadline of its saga has passed.
    pub(super) async fn late(&self, failures: u32) -> Finding {
        let policy = self.step.policy();
        let tries = self.tries(&policy.retries, &policy, failures);
        let known = Known::new(&policy, true, tries, self.noted.clone());
        known.found(self.exhausted(&policy, true, LATE.into()).await).0
    }

    /// Undoes the step until it is done, refused, or its schedule says to come back later.
    pub(super) async fn undo(&self, failures: u32, done: Option<Document>) -> Result<Undoing, Lost> {
        let policy = self.step.policy();
        let (tries, mut trying) = (self.tries(&policy.undo_retries, &policy, failures), None);
        let mut known = Known::new(&policy, false, tries, self.noted.clone());
        loop {
            if self.lapsed().await? {
                return Ok(known.undo_later(Duration::ZERO));
            }
            let turn = self.turn(&policy).await;
            if self.lapsed().await? {
                return Ok(known.undo_later(Duration::ZERO));
            }
            let failure = match turn {
                Ok(mut turn) => {
                    let undone = self.undo_once(&policy, known.failures(), done.clone()).await;
                    turn.observe(undone.as_ref().err());
                    match undone.and_then(|evidence| proof(&evidence)) {
                        Ok(proof) => return Ok(Undoing::Done(proof)),
                        Err(StepError::Rejected(reason)) => return Ok(Undoing::GivenUp(reason)),
                        Err(StepError::Fatal(reason)) => return Ok(Undoing::Fatal(reason)),
                        Err(StepError::Retryable(retry)) => known.retry(&retry),
                        Err(StepError::Unknown(source)) => {
                            known.error = Some(whole(&*source));
                            Failure::Definite
                        }
                    }
                }
                Err(closed @ Closed::Full(..)) if known.fresh => {
                    known.turned_away(&closed);
                    return Ok(known.undo_later(closed.left()));
                }
                Err(closed) => known.turned_away(&closed),
            };
            trying.get_or_insert_with(|| self.engine.requests.trying());
            let Some(pause) = known.pause(failure) else {
                return Ok(Undoing::GivenUp(known.reason()));
            };
            if let Waited::Leaving(retry_in) | Waited::Asked(retry_in) = self.wait(pause, &policy).await {
                return Ok(known.undo_later(retry_in));
            }
        }
    }

    /// Asks the other side about the key of `execute`. An error of the question is no answer.
    pub(super) async fn ask(&self, policy: &StepPolicy) -> Probe<Document> {
        self.question(policy).await.unwrap_or(Probe::Unknown)
    }

    /// The same, told from a question that was not answered.
    async fn question(&self, policy: &StepPolicy) -> Result<Probe<Document>, StepError> {
        let frame = self.frame(Operation::Execute, 1, policy);
        let effects = frame.effects.clone();
        let asked = self.guarded("probe", policy.timeout, || self.step.probe(Arc::clone(self.input), frame));
        let answer = match asked.await {
            // The probe has stated an effect of its own.
            Ok(Probe::NotApplied) if effects.stated().is_some() => Ok(Probe::Unknown),
            answer => answer,
        };
        let label = match answer {
            Ok(Probe::Applied(_)) => "applied",
            Ok(Probe::NotApplied) => "not_applied",
            Ok(Probe::NotSeenYet) => "not_seen_yet",
            Ok(Probe::Unknown) => "unknown",
            Err(_) => "no_answer",
        };
        metrics::step_probed(&self.saga.name, self.step.name(), label);
        answer
    }

    /// One attempt, and the effects that it stated. After one of them "no effect" is not true.
    async fn run_once(
        &self,
        policy: &StepPolicy,
        failures: u32,
    ) -> (Result<Document, StepError>, Option<String>) {
        let frame = self.frame(Operation::Execute, failures + 1, policy);
        let effects = frame.effects.clone();
        let ran = self
            .guarded("execute", policy.timeout, || self.step.execute(Arc::clone(self.input), frame))
            .await;
        let effects = effects.stated();
        let ran = match (ran, &effects) {
            (Err(StepError::Retryable(retry)), Some(effects)) => {
                Err(StepError::unknown(after(&retry.to_string(), effects)))
            }
            (Err(StepError::Unknown(source)), Some(effects)) => {
                Err(StepError::unknown(after(&whole(&*source), effects)))
            }
            (Err(StepError::Fatal(reason)), Some(effects)) => Err(StepError::fatal(after(&reason, effects))),
            (ran, _) => ran,
        };
        self.count(Operation::Execute, ran.as_ref().err());
        (ran, effects)
    }

    async fn undo_once(
        &self,
        policy: &StepPolicy,
        failures: u32,
        done: Option<Document>,
    ) -> Result<Evidence, StepError> {
        let frame = self.frame(Operation::Compensate, failures + 1, policy);
        let call = || self.step.compensate(Arc::clone(self.input), frame, done);
        let undone = self.guarded("compensate", policy.timeout, call).await;
        self.count(Operation::Compensate, undone.as_ref().err());
        undone
    }

    pub(super) fn count(&self, operation: Operation, error: Option<&StepError>) {
        metrics::step_tried(operation, &self.saga.name, self.step.name(), outcome(error));
    }

    /// Runs one call of a step. It may hang or panic: both leave the outcome unknown, but not that of a
    /// local step, whose transaction is not committed.
    pub(super) async fn guarded<'s, T, F>(
        &self,
        what: &'static str,
        limit: Duration,
        call: impl FnOnce() -> F,
    ) -> Result<T, StepError>
    where
        F: Future<Output = Result<T, StepError>> + Send + 's,
    {
        let span = tracing::info_span!(
            "saga_step",
            saga_id = %self.frame.saga_id,
            saga_type = %self.frame.saga_type,
            step = self.step.name(),
            operation = what,
        );
        let caught = AssertUnwindSafe(nested::inside(self.engine, async { call().await })).catch_unwind();
        let unanswered = |reason: String| match self.step.local() {
            Some(_) => StepError::retryable(reason),
            None => StepError::unknown(reason),
        };
        let began = Instant::now();
        let result = match timeout(limit, caught.instrument(span.clone())).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err(unanswered(format!("{what} panicked"))),
            Err(_elapsed) => Err(unanswered(format!("{what} gave no answer within {limit:?}"))),
        };
        metrics::step_timed(&self.saga.name, self.step.name(), what, began.elapsed());
        if let Err(error) = &result {
            tracing::warn!(parent: &span, %error, "the call of a saga step failed or was not answered");
        }
        result
    }

    /// Tells if the lease lapsed since this worker was last known to own the saga. The driver then writes the known
    /// state of the step first, and the store confirms or refuses the owner.
    pub(super) async fn lapsed(&self) -> Result<bool, Lost> {
        let allowed = self.engine.lease.allows(self.term).await;
        if self.engine.lease.is_revoked() { Err(Lost) } else { Ok(allowed.is_err()) }
    }

    pub(super) fn tries(&self, retries: &Backoff, policy: &StepPolicy, failures: u32) -> Tries {
        let seed = self.frame.saga_id.as_uuid().as_u64_pair().1;
        let (retries, patience) = (retries.clone(), policy.patience.clone());
        Tries::resumed(retries, patience, failures, known::waited(self.noted.as_deref()), seed)
    }

    /// The right to make the next call.
    async fn turn(&self, policy: &StepPolicy) -> Result<Turn, Closed> {
        self.engine.providers.turn(policy.provider.as_deref()).await
    }

    /// A long wait is not held in memory, nor is one for a provider that has no turn to give: the saga is given up and
    /// claimed again. Requests of operators end it.
    pub(super) async fn wait(&self, wait: Duration, policy: &StepPolicy) -> Waited {
        self.wait_heeding(wait, policy, self.turns).await
    }

    /// With `turns`, a request to turn back ends the wait as well.
    async fn wait_heeding(&self, wait: Duration, policy: &StepPolicy, turns: bool) -> Waited {
        let late = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let closed = self.engine.providers.is_closed(policy.provider.as_deref());
        if closed || wait > self.engine.settings.park_after {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            return match left {
                Some(Duration::ZERO) => Waited::Late,
                left => Waited::Leaving(left.map_or(wait, |left| left.min(wait))),
            };
        }
        let over = Instant::now() + wait;
        let left = || over.saturating_duration_since(Instant::now());
        let mut stop: watch::Receiver<Stop> = self.engine.stop_signal();
        tokio::select! {
            biased;
            () = self.engine.requests.wait(self.frame.saga_id, turns) => Waited::Asked(left()),
            _ = stop.wait_for(|stop| *stop >= Stop::Draining) => Waited::Leaving(left()),
            () = late => Waited::Late,
            () = sleep(wait) => Waited::Over,
        }
    }

    pub(super) fn frame(&self, operation: Operation, attempt: u32, policy: &StepPolicy) -> Frame {
        let now = Instant::now();
        let until = now.checked_add(policy.timeout).unwrap_or(now + NEVER);
        let (key, effects) = (OnceLock::new(), Effects::default());
        Frame { attempt, until, operation, key, effects, ..self.frame.clone() }
    }
}

/// The reason for which a question was not answered.
fn why(error: StepError) -> String {
    match error {
        StepError::Retryable(retry) => retry.to_string(),
        StepError::Unknown(source) => whole(&*source),
        StepError::Rejected(reason) | StepError::Fatal(reason) => reason,
    }
}

/// The beginning and the end of what a stored text says of effects.
const AFTER: (&str, &str) = ("after an effect that was acknowledged (", "): ");

/// The text for a failure that came after effects. They come first, because a long text is cut at its end.
pub(super) fn after(reason: &str, effects: &str) -> String {
    format!("{}{effects}{}{reason}", AFTER.0, AFTER.1)
}

/// The part of the text behind the effects that it begins with.
fn without_effects(text: &str) -> &str {
    text.strip_prefix(AFTER.0).and_then(|rest| rest.split_once(AFTER.1)).map_or(text, |(_, reason)| reason)
}

/// Reads the effects that a stored text names.
fn effects_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(AFTER.0)?;
    rest.split_once(AFTER.1).map(|(effects, _)| effects.to_owned())
}

/// Answers the text of the evidence, which must not be blank.
pub(super) fn proof(evidence: &Evidence) -> Result<String, StepError> {
    let text = evidence.as_str();
    if text.trim().is_empty() {
        return Err(StepError::fatal("its evidence is blank: name what a person can look up"));
    }
    Ok(text.into())
}

fn outcome(error: Option<&StepError>) -> &'static str {
    match error {
        None => "succeeded",
        Some(StepError::Rejected(_)) => "rejected",
        Some(StepError::Retryable(_)) => "retryable",
        Some(StepError::Unknown(_)) => "unknown",
        Some(StepError::Fatal(_)) => "fatal",
    }
}
