//! One step: attempts, questions, waits. Turns whatever happens into what is *known*.
//!
//! Invariant: an outcome that is not known is asked about before the step runs again, and a step
//! that must not run twice does not. An attempt that stated an effect never ends as if it had none.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument as _;

use super::lease::{Era, Lost};
use super::{Engine, Stop};
use crate::context::{Effects, Frame, Operation};
use crate::machine::{Finding, Undoing};
use crate::plan::{AnyInput, AnyStep, Saga};
use crate::policy::{StepPolicy, WhenUnknown};
use crate::record::Document;
use crate::step::{Evidence, Probe, StepError, whole};

/// Beyond this no limit of time matters, and none overflows.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a step is not tried again.
pub(super) const LATE: &str = "the deadline of the saga has passed";

/// Everything an attempt needs, borrowed from the driver for one step.
pub(super) struct Attempts<'a> {
    pub(super) engine: &'a Engine,
    pub(super) saga: &'a Saga,
    pub(super) step: &'a dyn AnyStep,
    pub(super) input: &'a AnyInput,
    pub(super) frame: Frame,
    pub(super) era: Era,
    /// No attempt of this step begins after it.
    pub(super) deadline: Option<Instant>,
}

/// How a wait ended.
#[derive(PartialEq, Eq)]
pub(super) enum Waited {
    Over,
    /// The worker leaves, this long before the end of the wait.
    Leaving(Duration),
    /// No attempt may follow.
    Late,
}

impl Attempts<'_> {
    /// Runs the step until something is known, or its policy is exhausted.
    pub(super) async fn execute(&self, mut maybe: bool, mut failures: u32) -> Result<(Finding, u32), Lost> {
        let policy = self.step.policy();
        let mut error: Option<String> = None;
        loop {
            self.engine.lease.allows(self.era).await?;
            let mut may_run = true;
            if maybe {
                match self.ask(&policy).await {
                    Probe::Applied(output) => return Ok((Finding::Succeeded(output), failures)),
                    Probe::NotApplied => maybe = false,
                    Probe::NotSeenYet => may_run = policy.idempotent,
                    Probe::Unknown if policy.idempotent => {}
                    Probe::Unknown => {
                        let reason = error.unwrap_or_else(|| "may have been started before".into());
                        return Ok((Finding::Unknown(reason, policy.when_unknown), failures));
                    }
                }
                self.engine.lease.allows(self.era).await?;
            }
            if may_run {
                let (ran, effects) = self.run_once(&policy, failures).await;
                match ran {
                    Ok(output) => return Ok((Finding::Succeeded(output), failures)),
                    Err(StepError::Rejected(reason)) => {
                        let finding = match effects {
                            Some(effects) => self.rejected_after(&policy, reason, &effects).await,
                            None => self.rejected(&policy, maybe, reason).await,
                        };
                        return Ok((finding, failures));
                    }
                    Err(StepError::Fatal(reason)) => {
                        return Ok((Finding::Fatal { reason, ran: true }, failures));
                    }
                    Err(StepError::Retryable(retry)) => error = Some(retry.to_string()),
                    Err(StepError::Unknown(source)) => (maybe, error) = (true, Some(whole(&*source))),
                }
            }
            failures += 1;
            let Some(wait) = policy.retries.wait_after(failures) else {
                let reason = error.unwrap_or_else(|| "not seen on the other side".into());
                return Ok((self.exhausted(&policy, maybe, reason).await, failures));
            };
            match self.wait(wait).await {
                Waited::Over => {}
                Waited::Leaving(retry_in) => {
                    return Ok((Finding::Later { maybe, error, retry_in }, failures));
                }
                Waited::Late => {
                    let reason = error.map_or_else(|| LATE.into(), |error| format!("{error}; {LATE}"));
                    return Ok((self.exhausted(&policy, maybe, reason).await, failures));
                }
            }
        }
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

    /// Refused after an effect of the same attempt: it happened, and the step is to be undone with it. What can be
    /// undone is asked about on the way back.
    async fn rejected_after(&self, policy: &StepPolicy, reason: String, effects: &str) -> Finding {
        let reason = after(&reason, effects);
        let mut steps = self.saga.shape.steps.iter();
        if steps.any(|step| step.name == self.frame.step && step.undo) {
            return Finding::Unknown(reason, WhenUnknown::Compensate);
        }
        self.rejected(policy, true, reason).await
    }

    /// The last word when no try is left.
    pub(super) async fn exhausted(&self, policy: &StepPolicy, maybe: bool, reason: String) -> Finding {
        if !maybe {
            return Finding::NotApplied(reason);
        }
        match self.ask(policy).await {
            Probe::Applied(output) => Finding::Succeeded(output),
            Probe::NotApplied => Finding::NotApplied(reason),
            Probe::NotSeenYet | Probe::Unknown => Finding::Unknown(reason, policy.when_unknown),
        }
    }

    /// What became of the step, asked as often as it would be tried, for as long as that can be held in memory. It is
    /// not run again.
    pub(super) async fn find_out(&self, reason: &str) -> Result<Finding, Lost> {
        let policy = self.step.policy();
        let mut asked = 0;
        loop {
            self.engine.lease.allows(self.era).await?;
            match self.ask(&policy).await {
                Probe::Applied(output) => return Ok(Finding::Succeeded(output)),
                Probe::NotApplied => return Ok(Finding::NotApplied(reason.into())),
                Probe::NotSeenYet | Probe::Unknown => asked += 1,
            }
            let wait =
                policy.retries.wait_after(asked).filter(|wait| *wait <= self.engine.settings.park_after);
            let Some(wait) = wait else { break };
            match self.wait(wait).await {
                Waited::Over => {}
                Waited::Leaving(retry_in) => {
                    return Ok(Finding::Later { maybe: true, error: Some(reason.into()), retry_in });
                }
                Waited::Late => break,
            }
        }
        Ok(Finding::Unknown(reason.into(), WhenUnknown::Stick))
    }

    /// Undoes the step until it is done, refused, or its schedule says to come back later.
    pub(super) async fn undo(&self, mut failures: u32, done: Option<Document>) -> Result<Undoing, Lost> {
        let policy = self.step.policy();
        loop {
            self.engine.lease.allows(self.era).await?;
            let error = match self.undo_once(&policy, failures, done.clone()).await {
                Ok(evidence) if evidence.as_str().trim().is_empty() => {
                    let reason = "its evidence is blank: name what a person can look up";
                    return Ok(Undoing::Fatal(reason.into()));
                }
                Ok(evidence) => return Ok(Undoing::Done(evidence.as_str().into())),
                Err(StepError::Rejected(reason)) => return Ok(Undoing::GivenUp(reason)),
                Err(StepError::Fatal(reason)) => return Ok(Undoing::Fatal(reason)),
                Err(StepError::Retryable(retry)) => retry.to_string(),
                Err(StepError::Unknown(source)) => whole(&*source),
            };
            failures += 1;
            let Some(wait) = policy.undo_retries.wait_after(failures) else {
                return Ok(Undoing::GivenUp(error));
            };
            if let Waited::Leaving(retry_in) = self.wait(wait).await {
                return Ok(Undoing::Later { failures, error: Some(error), retry_in });
            }
        }
    }

    /// What the world says about the execute key. An error of the question is no answer.
    pub(super) async fn ask(&self, policy: &StepPolicy) -> Probe<Document> {
        let frame = self.frame(Operation::Execute, 1, policy);
        let effects = frame.effects.clone();
        let asked = self.guarded("probe", policy.timeout, || self.step.probe(Arc::clone(self.input), frame));
        let answer = match asked.await {
            // It did something itself.
            Ok(Probe::NotApplied) if effects.stated().is_some() => Probe::Unknown,
            answer => answer.unwrap_or(Probe::Unknown),
        };
        let label = match answer {
            Probe::Applied(_) => "applied",
            Probe::NotApplied => "not_applied",
            Probe::NotSeenYet => "not_seen_yet",
            Probe::Unknown => "unknown",
        };
        metrics::counter!("probity_saga_probes_total", "type" => self.label(), "step" => self.step.name(), "result" => label)
            .increment(1);
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
        let name = match operation {
            Operation::Execute => "probity_saga_step_attempts_total",
            Operation::Compensate => "probity_saga_compensations_total",
        };
        metrics::counter!(name, "type" => self.label(), "step" => self.step.name(), "outcome" => outcome(error))
            .increment(1);
    }

    /// Runs one call of a step. It may hang or panic: both leave the outcome unknown, but not that of a
    /// local step, whose transaction nobody commits.
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
            saga.id = %self.frame.saga_id,
            saga.r#type = %self.frame.saga_type,
            step = self.step.name(),
            operation = what,
        );
        let caught = AssertUnwindSafe(async { call().await }).catch_unwind();
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
        metrics::histogram!("probity_saga_step_seconds", "type" => self.label(), "step" => self.step.name(), "operation" => what)
            .record(began.elapsed());
        if let Err(error) = &result {
            tracing::warn!(parent: &span, %error, "a saga step did not succeed");
        }
        result
    }

    /// A long wait is not held in memory: the saga is given up and claimed again.
    pub(super) async fn wait(&self, wait: Duration) -> Waited {
        let late = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        if wait > self.engine.settings.park_after {
            let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            return Waited::Leaving(left.map_or(wait, |left| left.min(wait)));
        }
        let over = Instant::now() + wait;
        let mut stop: watch::Receiver<Stop> = self.engine.stop_signal();
        tokio::select! {
            () = sleep(wait) => Waited::Over,
            () = late => Waited::Late,
            _ = stop.wait_for(|stop| *stop >= Stop::Draining) => {
                Waited::Leaving(over.saturating_duration_since(Instant::now()))
            }
        }
    }

    pub(super) fn frame(&self, operation: Operation, attempt: u32, policy: &StepPolicy) -> Frame {
        let now = Instant::now();
        let until = now.checked_add(policy.timeout).unwrap_or(now + NEVER);
        let (key, effects) = (OnceLock::new(), Effects::default());
        Frame { attempt, until, operation, key, effects, ..self.frame.clone() }
    }

    fn label(&self) -> Arc<str> {
        Arc::clone(&self.saga.name)
    }
}

/// What is said of a failure that came after effects.
pub(super) fn after(reason: &str, effects: &str) -> String {
    format!("{reason} (after an effect that was acknowledged: {effects})")
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
