//! A local step: its effect and its record in one transaction of the store.
//!
//! Invariant: an attempt ends with both committed, or with neither. When the commit is not answered this
//! driver does not guess: it gives the saga up, and the worker that claims it reads which of the two it was. If the step
//! stated an effect that no rollback takes back, the driver finds out itself, and stops the saga if it was neither.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Driver, Gone};
use crate::definition::AnyLocal;
use crate::engine::attempt::{Attempts, LATE, Waited, after};
use crate::engine::lease::LeaseTerm;
use crate::error::{Effect, StoreError};
use crate::machine::{Finding, Illegal, State, Undoing};
use crate::metrics;
use crate::policy::StepPolicy;
use crate::record::{Change, Document, Record, Requests, Verdict};
use crate::step::context::{Frame, Operation};
use crate::step::{Evidence, StepError, whole};
use crate::store::{LocalStore, LocalVerdict};

/// The waits while the database cannot be used; no attempt is counted.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The work that is to be done in the transaction.
enum Doing {
    Execute,
    Undo(Document),
}

/// The work that was done in it.
enum Done {
    Output(Document),
    Evidence(Evidence),
}

/// Effect and record are committed, and this is what follows.
struct Committed {
    state: State,
    requests: Requests,
    term: LeaseTerm,
}

/// The end of one attempt.
enum Once {
    Committed(Box<Committed>),
    /// Nothing of it is there.
    Failed(StepError),
    /// Nothing of it is there, and that says nothing about the step.
    Unavailable(StoreError),
    /// Nothing of it is there, and its record never will be.
    Unrecordable(String),
    /// The answer to the commit was lost: all of it is there, or nothing.
    Unanswered(String),
}

/// The end of a local step.
enum Ended {
    Committed(Box<Committed>),
    Unrecordable(String),
    /// An effect elsewhere was stated, and the answer to the commit was lost.
    Unanswered(String),
    Neither(Neither, u32),
}

/// The reason for which nothing of it is there.
enum Neither {
    Refused(String),
    Fatal(String),
    Later { error: Option<String>, retry_in: Duration },
}

/// The things that an attempt needs beside the driver.
struct Setting<'a> {
    attempts: &'a Attempts<'a>,
    policy: &'a StepPolicy,
    at: usize,
    step: &'a dyn AnyLocal,
    store: &'a dyn LocalStore,
}

impl Driver<'_> {
    pub(super) async fn execute_local(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        match self.until_known(at, &Doing::Execute, failures).await? {
            Ended::Committed(committed) => self.adopt(*committed),
            Ended::Unrecordable(reason) => self.refuse(from, reason).await?,
            Ended::Unanswered(reason) => {
                let mut state = self.state.clone();
                let fatal = Finding::Fatal { reason, ran: false };
                let stop = state.executed(&self.saga.shape, at, failures, fatal);
                self.stop_unless_committed(state, stop).await?;
            }
            Ended::Neither(neither, failures) => {
                let (finding, release) = match neither {
                    Neither::Refused(reason) => (Finding::NotApplied(reason), None),
                    Neither::Fatal(reason) => (Finding::Fatal { reason, ran: false }, None),
                    Neither::Later { error, retry_in } => (
                        Finding::Later { maybe: false, error, retry_in },
                        self.released_for(retry_in, self.turns()),
                    ),
                };
                let change = self.state.executed(&self.saga.shape, at, failures, finding);
                self.write_or_park(from, change, release).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn undo_local(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        let output = self.state.rows[at].as_ref().and_then(|row| row.output.clone());
        let Some(output) = output else {
            return self.refuse(from, "a local step that happened has no output on record".into()).await;
        };
        match self.until_known(at, &Doing::Undo(output), failures).await? {
            Ended::Committed(committed) => self.adopt(*committed),
            Ended::Unrecordable(reason) => self.refuse(from, reason).await?,
            Ended::Unanswered(reason) => {
                let mut state = self.state.clone();
                let stop = state.undone(&self.saga.shape, at, Undoing::Fatal(reason));
                self.stop_unless_committed(state, stop).await?;
            }
            Ended::Neither(neither, failures) => {
                let (undoing, release) = match neither {
                    Neither::Refused(reason) => (Undoing::GivenUp(reason), None),
                    Neither::Fatal(reason) => (Undoing::Fatal(reason), None),
                    Neither::Later { error, retry_in } => (
                        Undoing::Later { failures, error, retry_in },
                        self.released_for(retry_in, self.turns()),
                    ),
                };
                let change = self.state.undone(&self.saga.shape, at, undoing);
                self.write_or_park(from, change, release).await?;
            }
        }
        Ok(())
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

    async fn until_known(&self, at: usize, doing: &Doing, mut failures: u32) -> Result<Ended, Gone> {
        let attempts = self.attempts(at);
        let policy = attempts.step.policy();
        let (Some(store), Some(step)) = (self.engine.store.local(), attempts.step.local()) else {
            let reason = "the store has no transactions for local steps".into();
            return Ok(Ended::Neither(Neither::Fatal(reason), failures));
        };
        let schedule = match doing {
            Doing::Execute => policy.retries.clone(),
            Doing::Undo(_) => policy.undo_retries.clone(),
        };
        let setting = Setting { attempts: &attempts, policy: &policy, at, step, store };
        let mut pause = FIRST_PAUSE;
        let (mut last, mut trying) = (None, None);
        loop {
            if attempts.lapsed().await? {
                let later = Neither::Later { error: last, retry_in: Duration::ZERO };
                return Ok(Ended::Neither(later, failures));
            }
            let error = match self.once(&setting, doing, failures).await? {
                Once::Committed(committed) => return Ok(Ended::Committed(committed)),
                Once::Unrecordable(reason) => return Ok(Ended::Unrecordable(reason)),
                Once::Unanswered(reason) => return Ok(Ended::Unanswered(reason)),
                Once::Failed(StepError::Rejected(reason)) => {
                    return Ok(Ended::Neither(Neither::Refused(reason), failures));
                }
                Once::Failed(StepError::Fatal(reason)) => {
                    return Ok(Ended::Neither(Neither::Fatal(reason), failures));
                }
                Once::Failed(StepError::Retryable(retry)) => retry.to_string(),
                Once::Failed(StepError::Unknown(source)) => whole(&*source),
                Once::Unavailable(error) => {
                    tracing::warn!(%error, "a local step waits for its database");
                    metrics::store_failed();
                    if attempts.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Ok(Ended::Neither(Neither::Refused(LATE.into()), failures));
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            failures += 1;
            trying.get_or_insert_with(|| self.engine.requests.trying());
            let Some(wait) = schedule.wait_after(failures) else {
                return Ok(Ended::Neither(Neither::Refused(error), failures));
            };
            match attempts.wait(wait, &policy).await {
                Waited::Over => last = Some(error),
                Waited::Leaving(retry_in) | Waited::Asked(retry_in) => {
                    return Ok(Ended::Neither(Neither::Later { error: Some(error), retry_in }, failures));
                }
                Waited::Late => {
                    return Ok(Ended::Neither(Neither::Refused(format!("{error}; {LATE}")), failures));
                }
            }
        }
    }

    /// One attempt. What it did in its transaction is gone if it fails, but an effect that it stated is elsewhere.
    async fn once(&self, setting: &Setting<'_>, doing: &Doing, failures: u32) -> Result<Once, Gone> {
        let frame = setting.attempts.frame(doing.operation(), failures + 1, setting.policy);
        let effects = frame.effects.clone();
        let once = self.in_a_transaction(setting, doing, failures, frame).await?;
        let error = match &once {
            Once::Failed(error) => error.to_string(),
            Once::Unavailable(error) => error.to_string(),
            Once::Unanswered(error) => error.clone(),
            Once::Committed(_) | Once::Unrecordable(_) => return Ok(once),
        };
        let outside = effects.stated().map(|effects| {
            let error = after(&error, &effects);
            format!("{error} (after an effect outside of its transaction, which no rollback takes back; give it a step of its own)")
        });
        match (once, outside) {
            (Once::Unanswered(_), Some(reason)) => Ok(Once::Unanswered(reason)),
            (Once::Unanswered(_), None) => Err(Gone::Lost),
            (_, Some(reason)) => Ok(Once::Failed(StepError::fatal(reason))),
            (once, None) => Ok(once),
        }
    }

    async fn in_a_transaction(
        &self,
        setting: &Setting<'_>,
        doing: &Doing,
        failures: u32,
        frame: Frame,
    ) -> Result<Once, Gone> {
        let Setting { attempts, policy, at, step, store } = *setting;
        // It does not write its saga's row, so whoever takes an older lapse for the truth would not see it: no newer term.
        let term = self.term;
        let mut tx = match store.begin(policy.timeout).await {
            Ok(tx) => tx,
            Err(error) => return Ok(Once::Unavailable(error)),
        };
        let (input, connection) = (Arc::clone(attempts.input), tx.connection());
        let did = match doing {
            Doing::Execute => {
                let call = move || step.execute(input, frame, connection);
                attempts.guarded("execute", policy.timeout, call).await.map(Done::Output)
            }
            Doing::Undo(output) => {
                let call = move || step.compensate(input, frame, output.clone(), connection);
                attempts.guarded("compensate", policy.timeout, call).await.map(Done::Evidence)
            }
        };
        let done = match did {
            Ok(done) => done,
            Err(error) => {
                drop(tx);
                return Ok(self.failed(attempts, doing, error));
            }
        };
        let mut state = self.state.clone();
        let record = match self.record_of(&mut state, at, failures, done) {
            Ok(record) => record,
            Err(illegal) => return Ok(Once::Unrecordable(illegal.to_string())),
        };
        match tx.commit(&record).await {
            Ok(LocalVerdict::Applied(requests)) => {
                attempts.count(doing.operation(), None);
                Ok(Once::Committed(Box::new(Committed { state, requests, term })))
            }
            Ok(LocalVerdict::Fenced) => {
                metrics::write_fenced();
                Err(Gone::Lost)
            }
            Ok(LocalVerdict::Refused(reason)) => Ok(Once::Unrecordable(reason)),
            Ok(LocalVerdict::RolledBack(reason)) => {
                let error = StepError::retryable(format!("the transaction was rolled back: {reason}"));
                Ok(self.failed(attempts, doing, error))
            }
            Err(error) if error.effect() == Effect::NotApplied => Ok(Once::Unavailable(error)),
            Err(error) => {
                tracing::warn!(saga.id = %record.saga, %error, "the commit of a local step was not answered; the saga is read again");
                metrics::local_commit_unanswered();
                Ok(Once::Unanswered(error.to_string()))
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
                    tracing::warn!(saga.id = %id, %error, "a saga whose commit was not answered cannot be read yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Err(Gone::Lost)
    }

    fn failed(&self, attempts: &Attempts<'_>, doing: &Doing, error: StepError) -> Once {
        // What an error of a local step leaves unknown is only when the database is back.
        if let StepError::Unknown(source) = error {
            return Once::Unavailable(StoreError::not_applied("run a local step", source));
        }
        attempts.count(doing.operation(), Some(&error));
        Once::Failed(error)
    }

    /// The record that commits with what was done, as the state after it.
    fn record_of(&self, state: &mut State, at: usize, failures: u32, done: Done) -> Result<Record, Illegal> {
        let shape = &self.saga.shape;
        let change: Change = match done {
            Done::Output(output) => state.executed(shape, at, failures, Finding::Succeeded(output))?,
            Done::Evidence(evidence) => state.undone(shape, at, Undoing::Done(evidence.as_str().into()))?,
        };
        Ok(self.next_record(change))
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

impl Doing {
    fn operation(&self) -> Operation {
        match self {
            Self::Execute => Operation::Execute,
            Self::Undo(_) => Operation::Compensate,
        }
    }
}
