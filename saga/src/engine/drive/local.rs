//! A local step: its effect and its record in one transaction of the store.
//!
//! Invariant: an attempt ends with both committed, or with neither. When the commit is not answered this
//! driver does not guess: it gives the saga up, and the worker that claims it reads which of the two it was. If the step
//! stated an effect that no rollback takes back, the driver finds out itself, and stops the saga if it was neither.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Driver, Gone};
use crate::core::{Finding, Illegal, State, Undoing};
use crate::definition::AnyLocal;
use crate::engine::attempt::{Attempts, Known, LATE, Waited, after, proof};
use crate::engine::lease::LeaseTerm;
use crate::error::{Effect, StoreError};
use crate::metrics;
use crate::policy::StepPolicy;
use crate::record::{Change, Document, Record, Requests, Verdict};
use crate::step::context::{Frame, Operation};
use crate::step::{StepError, whole};
use crate::store::{LocalStore, LocalVerdict};

/// The waits for an answer to the question whether a commit happened.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The call of a local step that is made in the transaction.
enum LocalCall {
    Execute,
    /// With the output that is to be undone.
    Undo(Document),
}

/// The effect and the record are committed. These are the consequences for the driver.
struct Committed {
    state: State,
    requests: Requests,
    term: LeaseTerm,
}

/// The outcome of an attempt, or of the last one that was made.
enum AttemptOutcome {
    Committed(Box<Committed>),
    /// The transaction left nothing.
    Failed(StepError),
    /// The transaction left nothing, and that says nothing about the step.
    Unavailable(StoreError),
    /// The transaction left nothing, and its record can never be written.
    Unrecordable(String),
    /// The answer to the commit was lost after the step had stated an effect in another system: all of it is there, or nothing.
    Unanswered(String),
}

/// The outcome of a step after its last attempt for now.
enum StepOutcome {
    Committed(Box<Committed>),
    Refused(String),
    Fatal(String),
    Later { error: Option<String>, retry_in: Duration },
    Unrecordable(String),
    Unanswered(String),
}

/// Everything that an attempt needs beside the driver.
struct AttemptContext<'a> {
    attempts: &'a Attempts<'a>,
    policy: &'a StepPolicy,
    at: usize,
    step: &'a dyn AnyLocal,
    store: &'a dyn LocalStore,
}

impl Driver<'_> {
    pub(super) async fn execute_local(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        let (outcome, failures) = self.until_known(at, &LocalCall::Execute, failures).await?;
        let (finding, release) = match outcome {
            StepOutcome::Committed(committed) => {
                self.adopt(*committed);
                return Ok(());
            }
            StepOutcome::Unrecordable(reason) => return self.refuse(from, reason).await,
            StepOutcome::Unanswered(reason) => {
                let mut state = self.state.clone();
                let fatal = Finding::Fatal { reason, ran: false };
                let stop = state.executed(&self.saga.shape, at, failures, fatal);
                return self.stop_unless_committed(state, stop).await;
            }
            StepOutcome::Refused(reason) => (Finding::NotApplied(reason), None),
            StepOutcome::Fatal(reason) => (Finding::Fatal { reason, ran: false }, None),
            StepOutcome::Later { error, retry_in } => {
                let release = self.released_for(retry_in, self.turns());
                (Finding::Later { maybe: false, error, retry_in }, release)
            }
        };
        let change = self.state.executed(&self.saga.shape, at, failures, finding);
        self.write_or_park(from, change, release).await
    }

    pub(super) async fn undo_local(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        let output = self.state.rows[at].as_ref().and_then(|row| row.output.clone());
        let Some(output) = output else {
            return self.refuse(from, "a local step that happened has no output on record".into()).await;
        };
        let (outcome, failures) = self.until_known(at, &LocalCall::Undo(output), failures).await?;
        let (undoing, release) = match outcome {
            StepOutcome::Committed(committed) => {
                self.adopt(*committed);
                return Ok(());
            }
            StepOutcome::Unrecordable(reason) => return self.refuse(from, reason).await,
            StepOutcome::Unanswered(reason) => {
                let mut state = self.state.clone();
                let stop = state.undone(&self.saga.shape, at, Undoing::Fatal(reason));
                return self.stop_unless_committed(state, stop).await;
            }
            StepOutcome::Refused(reason) => (Undoing::GivenUp(reason), None),
            StepOutcome::Fatal(reason) => (Undoing::Fatal(reason), None),
            StepOutcome::Later { error, retry_in } => {
                let release = self.released_for(retry_in, self.turns());
                (Undoing::Later { failures, error, retry_in }, release)
            }
        };
        let change = self.state.undone(&self.saga.shape, at, undoing);
        self.write_or_park(from, change, release).await
    }

    fn adopt(&mut self, committed: Committed) {
        let from = self.state.status;
        self.write_no += 1;
        drop(self.suspect.take());
        (self.state, self.term) = (committed.state, committed.term);
        self.hears(committed.requests);
        self.count_transition(from, self.state.status);
        self.tell_if_too_late(from);
    }

    /// Makes attempts until the outcome is known, or until the next one is due later. Answers the failures so far as
    /// well.
    async fn until_known(
        &self,
        at: usize,
        call: &LocalCall,
        failures: u32,
    ) -> Result<(StepOutcome, u32), Gone> {
        let attempts = self.attempts(at);
        let policy = attempts.step.policy();
        let (Some(store), Some(step)) = (self.engine.store.local(), attempts.step.local()) else {
            let reason = "the store has no transactions for local steps".into();
            return Ok((StepOutcome::Fatal(reason), failures));
        };
        let schedule = match call {
            LocalCall::Execute => &policy.retries,
            LocalCall::Undo(_) => &policy.undo_retries,
        };
        let context = AttemptContext { attempts: &attempts, policy: &policy, at, step, store };
        let tries = attempts.tries(schedule, &policy, failures);
        let mut known = Known::new(&policy, false, tries, attempts.noted.clone());
        let mut trying = None;
        let outcome = loop {
            if attempts.lapsed().await? {
                break StepOutcome::Later { error: known.told(), retry_in: Duration::ZERO };
            }
            let failure = match self.attempt(&context, call, known.failures()).await? {
                AttemptOutcome::Committed(committed) => break StepOutcome::Committed(committed),
                AttemptOutcome::Unrecordable(reason) => break StepOutcome::Unrecordable(reason),
                AttemptOutcome::Unanswered(reason) => break StepOutcome::Unanswered(reason),
                AttemptOutcome::Failed(StepError::Rejected(reason)) => break StepOutcome::Refused(reason),
                AttemptOutcome::Failed(StepError::Fatal(reason)) => break StepOutcome::Fatal(reason),
                AttemptOutcome::Failed(StepError::Retryable(retry)) => known.retry(&retry),
                AttemptOutcome::Failed(StepError::Unknown(source)) => known.retry(&whole(&*source).into()),
                AttemptOutcome::Unavailable(error) => {
                    tracing::warn!(%error, "the worker cannot reach the database of a local step; it tries again");
                    metrics::store_failed();
                    known.without_database(&error)
                }
            };
            trying.get_or_insert_with(|| self.engine.requests.trying());
            let Some(pause) = known.pause(failure) else { break StepOutcome::Refused(known.reason()) };
            match attempts.wait(pause, &policy).await {
                Waited::Over => {}
                Waited::Leaving(retry_in) | Waited::Asked(retry_in) => {
                    break StepOutcome::Later { error: known.told(), retry_in };
                }
                Waited::Late => break StepOutcome::Refused(format!("{}; {LATE}", known.reason())),
            }
        };
        Ok((outcome, known.failures()))
    }

    /// Makes one attempt. If it fails, its transaction is rolled back, but a stated effect in another system stays.
    async fn attempt(
        &self,
        context: &AttemptContext<'_>,
        call: &LocalCall,
        failures: u32,
    ) -> Result<AttemptOutcome, Gone> {
        let frame = context.attempts.frame(call.operation(), failures + 1, context.policy);
        let effects = frame.effects.clone();
        let outcome = self.in_a_transaction(context, call, failures, frame).await;
        let stated = effects.stated();
        if let (Err(_), Some(effects)) = (&outcome, &stated) {
            self.tell_of_a_forgotten_effect(effects);
        }
        let outcome = outcome?;
        let error = match &outcome {
            AttemptOutcome::Failed(error) => error.to_string(),
            AttemptOutcome::Unavailable(error) => error.to_string(),
            AttemptOutcome::Unanswered(error) | AttemptOutcome::Unrecordable(error) => error.clone(),
            AttemptOutcome::Committed(_) => return Ok(outcome),
        };
        let outside = stated.map(|effects| {
            let error = format!(
                "outside of its transaction, which no rollback takes back; give it a step of its own: {error}"
            );
            after(&error, &effects)
        });
        match (outcome, outside) {
            (AttemptOutcome::Unanswered(_), Some(reason)) => Ok(AttemptOutcome::Unanswered(reason)),
            (AttemptOutcome::Unanswered(_), None) => Err(Gone::Lost),
            (AttemptOutcome::Unrecordable(_), Some(reason)) => Ok(AttemptOutcome::Unrecordable(reason)),
            (_, Some(reason)) => Ok(AttemptOutcome::Failed(StepError::fatal(reason))),
            (outcome, None) => Ok(outcome),
        }
    }

    /// Calls the step in a transaction, and commits it with the record of the step.
    async fn in_a_transaction(
        &self,
        context: &AttemptContext<'_>,
        call: &LocalCall,
        failures: u32,
        frame: Frame,
    ) -> Result<AttemptOutcome, Gone> {
        let AttemptContext { attempts, policy, at, step, store } = *context;
        // The term stays as it is: the next write of the driver takes a newer one.
        let term = self.term;
        let mut tx = match store.begin(policy.timeout).await {
            Ok(tx) => tx,
            Err(error) => return Ok(AttemptOutcome::Unavailable(error)),
        };
        let (input, connection) = (Arc::clone(attempts.input), tx.connection());
        let mut state = self.state.clone();
        let shape = &self.saga.shape;
        let change = match call {
            LocalCall::Execute => {
                let execute = move || step.execute(input, frame, connection);
                let executed = attempts.guarded("execute", policy.timeout, execute).await;
                executed.map(|output| state.executed(shape, at, failures, Finding::Succeeded(output)))
            }
            LocalCall::Undo(output) => {
                let undo = move || step.compensate(input, frame, output.clone(), connection);
                let undone = attempts.guarded("compensate", policy.timeout, undo).await;
                let proven = undone.and_then(|evidence| proof(&evidence));
                proven.map(|proof| state.undone(shape, at, Undoing::Done(proof)))
            }
        };
        let record = match change {
            Ok(Ok(change)) => self.next_record(change),
            Ok(Err(illegal)) => return Ok(AttemptOutcome::Unrecordable(illegal.to_string())),
            Err(error) => {
                drop(tx);
                return Ok(self.failed(attempts, call, error));
            }
        };
        match tx.commit(&record).await {
            Ok(LocalVerdict::Applied(requests)) => {
                attempts.count(call.operation(), None);
                Ok(AttemptOutcome::Committed(Box::new(Committed { state, requests, term })))
            }
            Ok(LocalVerdict::Fenced) => {
                metrics::write_fenced();
                Err(Gone::Lost)
            }
            Ok(LocalVerdict::Refused(reason)) => Ok(AttemptOutcome::Unrecordable(reason)),
            Ok(LocalVerdict::RolledBack(reason)) => {
                let error = StepError::retryable(format!("the transaction was rolled back: {reason}"));
                Ok(self.failed(attempts, call, error))
            }
            Err(error) if error.effect() == Effect::NotApplied => Ok(AttemptOutcome::Unavailable(error)),
            Err(error) => {
                tracing::warn!(saga_id = %record.saga, %error, "the COMMIT of a local step was not answered; the worker reads the saga again");
                metrics::local_commit_unanswered();
                Ok(AttemptOutcome::Unanswered(error.to_string()))
            }
        }
    }

    /// Stops the saga unless the step was committed. The stop has the number of the step's record, so the store applies
    /// one of them at most, and it waits for a transaction that is still open.
    async fn stop_unless_committed(
        &mut self,
        stopped: State,
        stop: Result<Change, Illegal>,
    ) -> Result<(), Gone> {
        let (from, id) = (self.state.status, self.journal.instance.id);
        let Ok(change) = stop else { return Err(Gone::Lost) };
        let record = Record { rewrite: true, ..self.next_record(change) };
        let Ok(Verdict::Applied(requests)) = self.engine.writer.apply(record).await else {
            self.tell_of_a_forgotten_effect(stopped.reason.as_deref().unwrap_or_default());
            return Err(Gone::Lost);
        };
        let mut pause = FIRST_PAUSE;
        while !self.engine.lease.is_revoked() {
            match self.engine.store.load(&[id]).await {
                Ok(found) => {
                    let stands = found.first().map(|journal| journal.instance.status);
                    if stands != Some(stopped.status) {
                        return Err(Gone::Lost);
                    }
                    self.write_no += 1;
                    self.state = stopped;
                    self.hears(requests);
                    self.count_transition(from, self.state.status);
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(saga_id = %id, %error, "the worker cannot read a saga whose COMMIT was not answered; it tries again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Err(Gone::Lost)
    }

    /// Tells of an effect outside of a transaction that may be gone, on the way out of a saga that other workers go on
    /// with: no row names the effect.
    fn tell_of_a_forgotten_effect(&self, effects: &str) {
        let saga_id = self.journal.instance.id;
        tracing::error!(%saga_id, effects, "a local step stated an effect in another system, and this worker lost the saga before it knew whether the step was committed: look whether that effect should stand");
    }

    fn failed(&self, attempts: &Attempts<'_>, call: &LocalCall, error: StepError) -> AttemptOutcome {
        // After an unknown error of a local step no effect is there; the database is unavailable.
        if let StepError::Unknown(source) = error {
            return AttemptOutcome::Unavailable(StoreError::not_applied("run a local step", source));
        }
        attempts.count(call.operation(), Some(&error));
        AttemptOutcome::Failed(error)
    }

    fn next_record(&self, change: Change) -> Record {
        let instance = &self.journal.instance;
        Record {
            saga: instance.id,
            epoch: instance.epoch,
            write_no: self.write_no + 1,
            from: self.state.status,
            change,
            release: None,
            rewrite: false,
            turning: false,
        }
    }
}

impl LocalCall {
    fn operation(&self) -> Operation {
        match self {
            Self::Execute => Operation::Execute,
            Self::Undo(_) => Operation::Compensate,
        }
    }
}
