//! Drives one saga from the state of its journal until it comes to rest.
//!
//! Invariant: the loop is decision of the core → effect → write → acknowledgement, in that order; a refused
//! write ends it without another effect.

mod local;
mod waiting;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::attempt::{Attempts, LATE};
use super::lease::{LeaseTerm, Lost};
use super::park::{park, printable};
use super::writer::Unanswered;
use super::{Engine, Notification, Stop};
use crate::alert::tell_of_stop;
use crate::codec::Place;
use crate::core::{Finding, Illegal, Next, State, Undoing, joined};
use crate::definition::{AnyInput, Saga};
use crate::metrics;
use crate::policy::FARTHEST;
use crate::record::{Change, Document, Journal, Record, Requests, Verdict};
use crate::status::Status;
use crate::step::Probe;
use crate::step::context::{Effects, Frame, Operation, Uses};

/// The reason for which a drive ends without the saga being at rest.
enum Gone {
    /// Another worker owns it, or will.
    Lost,
    /// It was given up on purpose, to be claimed later.
    Released,
}

impl From<Lost> for Gone {
    fn from(_: Lost) -> Self {
        Self::Lost
    }
}

/// A saga that is to be driven.
pub(super) struct Taken {
    pub(super) journal: Journal,
    /// When its age was read: it goes on ageing while this waits for a permit.
    pub(super) read: Instant,
    pub(super) clean: bool,
    /// The lease term in which this worker was known to own the saga.
    pub(super) term: LeaseTerm,
    /// The right to drive what may have killed its workers.
    pub(super) suspect: Option<OwnedSemaphorePermit>,
}

struct Driver<'a> {
    engine: &'a Engine,
    saga: Arc<Saga>,
    journal: Journal,
    read: Instant,
    business_id: Arc<str>,
    state: State,
    input: AnyInput,
    requests: Requests,
    write_no: i64,
    term: LeaseTerm,
    /// When it must have passed its pivot or be done.
    deadline: Option<Instant>,
    /// Given back with the first result: it was not this saga.
    suspect: Option<OwnedSemaphorePermit>,
    /// It has done nothing yet.
    fresh: bool,
    /// It was asked to turn back, and finds out if it may.
    turning: bool,
}

/// Drives a saga; the news is for its waiters. `None`: others will go on with it.
pub(super) async fn drive(engine: &Engine, taken: Taken) -> Option<Notification> {
    let Taken { journal, read: read_at, clean, term, suspect } = taken;
    let instance = &journal.instance;
    let saga = engine.plan(&instance.saga_type, &instance.definition)?;
    let id = instance.id;
    let read =
        State::load(&saga.shape, &journal, clean).map_err(|corrupt| corrupt.to_string()).and_then(|state| {
            let place = Place { saga_type: &instance.saga_type, saga: id, output_of: None };
            let input = (saga.input.decode)(&engine.sealer, &place, &instance.input);
            let input = input.map_err(|why| format!("the stored input cannot be read: {}", printable(&why)));
            Ok((state, input?))
        });
    let (state, input) = match read {
        Ok(read) => read,
        Err(reason) => return park(engine, &journal, reason).await,
    };
    let requests = Requests { cancel: instance.cancel_requested.clone(), pause: instance.pause_requested };
    let write_no = instance.write_no;
    let left = saga.deadline.map(|limit| limit.saturating_sub(instance.age));
    let deadline = left.and_then(|left| read_at.checked_add(left));
    let business_id = journal.instance.business_id.as_str().into();
    let mut driver = Driver {
        engine,
        saga,
        journal,
        read: read_at,
        business_id,
        state,
        input,
        requests,
        write_no,
        term,
        deadline,
        suspect,
        fresh: true,
        turning: false,
    };
    engine.requests.correct(id, &driver.requests);
    driver.tell_if_overdue();
    match driver.run().await {
        Ok(news) => Some(news),
        Err(Gone::Released) => (engine.stopping() >= Stop::Draining).then_some(Notification::Draining),
        Err(Gone::Lost) => {
            tracing::info!(saga_id = %id, "the worker stops driving the saga, because another worker took it over");
            (engine.stopping() >= Stop::Draining).then_some(Notification::Draining)
        }
    }
}

impl Driver<'_> {
    async fn run(&mut self) -> Result<Notification, Gone> {
        loop {
            if let Some(news) = self.rest() {
                return Ok(news);
            }
            let (from, next) = (self.state.status, self.state.next(&self.saga.shape));
            if self.engine.stopping() >= Stop::Draining {
                // Retiring the worker releases all its sagas in one write, but only this driver knows
                // that the next step has not begun.
                if let Next::Execute { at, maybe: false, failures } = next
                    && !self.is_local(at)
                {
                    self.leave(at, failures).await?;
                }
                return Err(Gone::Released);
            }
            if self.heeds_requests().await? {
                continue;
            }
            if std::mem::take(&mut self.fresh) {
                self.goes_on_waiting(next).await?;
            }
            let acts = matches!(next, Next::Execute { .. } | Next::Undo { .. } | Next::Ask { .. });
            if acts && !self.is_ours().await? {
                continue;
            }
            match next {
                Next::Execute { at, maybe, failures } => self.execute(at, maybe, failures).await?,
                Next::Announce { at } => {
                    let change = self.state.announced(&self.saga.shape, at);
                    self.write_or_park(from, Ok(change), None).await?;
                }
                Next::Undo { at, failures } => self.undo(at, failures).await?,
                Next::Ask { at } => self.ask(at).await?,
                Next::TurnBack => {
                    let reason = self.state.reason.clone().unwrap_or_else(|| "a step did not happen".into());
                    let change = self.state.turned(&self.saga.shape, reason);
                    self.write_or_park(from, change, None).await?;
                }
                Next::Settle(trigger) => {
                    let change = self.state.settled(&self.saga.shape, trigger);
                    self.write_or_park(from, change, None).await?;
                }
                Next::Stop => return Err(Gone::Released),
            }
        }
    }

    fn rest(&self) -> Option<Notification> {
        let status = self.state.status;
        if status.is_active() {
            return None;
        }
        let step = self.state.rows.iter().take_while(|row| row.is_some()).count();
        Some(Notification::Settled {
            status,
            step: u32::try_from(step).unwrap_or(u32::MAX),
            reason: self.state.reason.clone(),
        })
    }

    /// Does what an operator asked for, if the state still allows it.
    async fn heeds_requests(&mut self) -> Result<bool, Gone> {
        let (from, shape) = (self.state.status, &self.saga.shape);
        let change = if std::mem::take(&mut self.requests.pause) {
            self.state.paused(shape, "paused by an operator".into())
        } else {
            let turns = self.requests.cancel.take().filter(|_| from == Status::InProgress);
            let Some(reason) = turns else { return Ok(false) };
            if let Some(pivot) = self.state.pivot_in_doubt(shape) {
                return self.turn_unless_past(pivot, reason).await.map(|()| true);
            }
            self.state.turned(shape, reason)
        };
        self.write_or_park(from, change, None).await.map(|()| true)
    }

    /// Finds out if the pivot happened, before anything else, when the saga was asked to turn back.
    async fn turn_unless_past(&mut self, pivot: usize, reason: String) -> Result<(), Gone> {
        if !self.is_ours().await? {
            return Ok(());
        }
        let from = self.state.status;
        let failures = self.state.rows[pivot].as_ref().map_or(0, |row| row.retries);
        // A request that comes before the next question is due has one asked for it, and the wait goes on as it was.
        let left = self.state.rows[pivot].as_ref().and_then(|row| row.retry_in);
        let ahead = left.filter(|left| self.fresh && *left >= waiting::SOON);
        let (found, failures) = self.attempts(pivot).find_out(&reason, failures, ahead).await?;
        let release = match &found {
            Finding::Later { retry_in, .. } => self.released_for(*retry_in, false),
            _ => None,
        };
        let change = self.state.turned_unless_past(&self.saga.shape, pivot, failures, found, reason);
        self.turning = true;
        let written = self.write_or_park(from, change, release).await;
        self.turning = false;
        written
    }

    async fn leave(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        let error = self.state.rows[at].as_ref().and_then(|row| row.error.clone());
        let waiting = Finding::Later { maybe: false, error, retry_in: Duration::ZERO };
        let change = self.state.executed(&self.saga.shape, at, failures, waiting);
        self.write_or_park(from, change, Some(Duration::ZERO)).await
    }

    /// Past the deadline and before the pivot no step is executed any more. A step that may have been started is
    /// probed; its policy decides what an unknown answer means.
    async fn execute_late(&mut self, at: usize, maybe: bool, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        let change = if maybe {
            let finding = self.attempts(at).late(failures).await;
            self.state.executed(&self.saga.shape, at, failures, finding)
        } else {
            self.state.turned(&self.saga.shape, LATE.into())
        };
        self.write_or_park(from, change, None).await
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Past the pivot a deadline changes nothing; it is only seen.
    fn tell_if_overdue(&self) {
        if self.state.status == Status::Committing && self.is_overdue() {
            tracing::warn!(saga_id = %self.journal.instance.id, "the saga is past its pivot and its deadline; the worker goes on with it");
            metrics::saga_overdue(&self.saga.name);
        }
    }

    async fn execute(&mut self, at: usize, maybe: bool, failures: u32) -> Result<(), Gone> {
        let from = self.state.status;
        if from == Status::InProgress && self.is_overdue() {
            return self.execute_late(at, maybe, failures).await;
        }
        if self.is_local(at) {
            return self.execute_local(at, failures).await;
        }
        let (finding, failures) = self.attempts(at).execute(maybe, failures).await?;
        let release = match &finding {
            Finding::Later { retry_in, .. } => self.released_for(*retry_in, self.turns()),
            _ => None,
        };
        if let Finding::Unknown(..) = finding {
            metrics::outcome_unknown(&self.saga.name);
        }
        let change = self.state.executed(&self.saga.shape, at, failures, finding);
        self.write_or_park(from, change, release).await
    }

    async fn undo(&mut self, at: usize, failures: u32) -> Result<(), Gone> {
        if self.is_local(at) {
            return self.undo_local(at, failures).await;
        }
        let from = self.state.status;
        let done = self.state.rows[at].as_ref().and_then(|row| row.output.clone());
        let undoing = self.attempts(at).undo(failures, done).await?;
        let release = match &undoing {
            Undoing::Later { retry_in, .. } => self.released_for(*retry_in, self.turns()),
            _ => None,
        };
        let change = self.state.undone(&self.saga.shape, at, undoing);
        self.write_or_park(from, change, release).await
    }

    async fn ask(&mut self, at: usize) -> Result<(), Gone> {
        let from = self.state.status;
        let attempts = self.attempts(at);
        let applied = match attempts.ask(&attempts.step.policy()).await {
            Probe::Applied(output) => Some(Some(output)),
            Probe::NotApplied => Some(None),
            Probe::NotSeenYet | Probe::Unknown => None,
        };
        match self.state.asked(&self.saga.shape, at, applied) {
            Some(change) => self.write_or_park(from, Ok(change), None).await,
            None => Ok(()),
        }
    }

    fn is_local(&self, at: usize) -> bool {
        self.saga.shape.steps[at].local
    }

    fn attempts(&self, at: usize) -> Attempts<'_> {
        let instance = &self.journal.instance;
        let done = |row: &crate::record::StepRow| row.output.clone();
        let steps = self.saga.shape.steps.iter().zip(&self.state.rows).take(at);
        let outputs: Vec<(&'static str, Document)> =
            steps.filter_map(|(step, row)| Some((step.name, row.as_ref().and_then(done)?))).collect();
        Attempts {
            engine: self.engine,
            saga: &self.saga,
            step: &*self.saga.steps[at],
            input: &self.input,
            frame: Frame {
                saga_id: instance.id,
                saga_type: Arc::clone(&self.saga.name),
                business_id: Arc::clone(&self.business_id),
                step: self.saga.shape.steps[at].name,
                attempt: 1,
                until: Instant::now(),
                operation: Operation::Execute,
                key: OnceLock::new(),
                outputs: outputs.into(),
                uses: Uses { declared: self.saga.steps[at].uses(), told: None },
                sealer: self.engine.sealer.clone(),
                effects: Effects::default(),
            },
            term: self.term,
            deadline: self.deadline.filter(|_| self.state.status == Status::InProgress),
            turns: self.turns(),
            noted: self.state.rows[at].as_ref().and_then(|row| row.error.clone()),
        }
    }

    async fn write_or_park(
        &mut self,
        from: Status,
        change: Result<Change, Illegal>,
        release: Option<Duration>,
    ) -> Result<(), Gone> {
        match change {
            Ok(change) => self.write(from, change, release).await,
            Err(illegal) => self.refuse(from, illegal.to_string()).await,
        }
    }

    async fn write(&mut self, from: Status, change: Change, release: Option<Duration>) -> Result<(), Gone> {
        match self.submit(from, change, release).await? {
            Verdict::Applied(requests) => {
                self.hears(requests);
                self.tell_if_too_late(from);
                if release.is_some() { Err(Gone::Released) } else { Ok(()) }
            }
            Verdict::Refused(reason) => self.refuse(from, reason).await,
            Verdict::Fenced => Err(Gone::Lost),
        }
    }

    /// Takes the requests that the store told with the answer to a write: they are newer than what a query told.
    fn hears(&mut self, requests: Requests) {
        self.engine.requests.correct(self.journal.instance.id, &requests);
        self.requests = requests;
    }

    /// A request to turn back that met the result after which there is no way back. It stays in the
    /// saga's row, where `Instance::cancelled_too_late` finds it.
    fn tell_if_too_late(&self, from: Status) {
        let over = matches!(self.state.status, Status::Committing | Status::Completed);
        if let (true, true, Some(cancel)) = (over, from != self.state.status, &self.requests.cancel) {
            let id = self.journal.instance.id;
            tracing::warn!(saga_id = %id, cancel, status = %self.state.status, "the request to turn the saga back came after its pivot; the saga goes forward");
            metrics::cancel_too_late(&self.saga.name);
        }
    }

    /// A write that cannot be: park this saga with the evidence, go on with the others.
    async fn refuse(&mut self, from: Status, reason: String) -> Result<(), Gone> {
        let instance = &self.journal.instance;
        let before = self.state.reason.as_deref().map(printable);
        let change = Change {
            status: Status::Paused,
            resume_status: Some(from),
            reason: Some(joined(
                before.as_deref(),
                format!("a result cannot be stored: {}", printable(&reason)),
            )),
            current_step: instance.current_step,
            unresolved: self.state.unresolved(&self.saga.shape),
            steps: Vec::new(),
        };
        (self.state.status, self.state.resume) = (Status::Paused, Some(from));
        self.state.reason.clone_from(&change.reason);
        match self.submit(from, change, None).await? {
            Verdict::Applied(_) => Ok(()),
            Verdict::Refused(_) | Verdict::Fenced => Err(Gone::Lost),
        }
    }

    async fn submit(
        &mut self,
        from: Status,
        change: Change,
        release: Option<Duration>,
    ) -> Result<Verdict, Gone> {
        self.write_no += 1;
        let instance = &self.journal.instance;
        let (status, term) = (change.status, self.engine.lease.term());
        let record = Record {
            saga: instance.id,
            epoch: instance.epoch,
            write_no: self.write_no,
            from,
            change,
            release: release.map(|wait| wait.min(FARTHEST)),
            rewrite: term != self.term,
            turning: self.turning,
        };
        let verdict = match self.engine.writer.apply(record).await {
            Ok(verdict) => verdict,
            Err(Unanswered::Lost | Unanswered::Store(_)) => return Err(Gone::Lost),
        };
        if let Verdict::Applied(_) = verdict {
            // The record was written under this epoch after the last heartbeat, into the saga's row: no worker took the saga in an
            // earlier lapse, and a claim that began in that lapse sees the new row version.
            self.term = term;
            drop(self.suspect.take());
        }
        match verdict {
            Verdict::Applied(_) => self.count_transition(from, status),
            Verdict::Fenced => metrics::write_fenced(),
            Verdict::Refused(_) => {}
        }
        Ok(verdict)
    }

    fn count_transition(&self, from: Status, to: Status) {
        if from == to {
            return;
        }
        metrics::transition(Arc::clone(&self.saga.name), to);
        if matches!(to, Status::Stuck | Status::Paused) {
            let (id, reason) = (self.journal.instance.id, self.state.reason.as_deref());
            tell_of_stop(id, &self.saga.name, &self.business_id, to, reason);
        }
        if to.is_terminal() {
            let age = self.journal.instance.age + self.read.elapsed();
            metrics::saga_ended(&self.saga.name, to, age);
        }
    }
}
