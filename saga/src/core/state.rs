//! The state of a saga: read from its rows, it decides the next thing to do, and turns its outcome into the next write.
//!
//! Invariant: [`State::next`] depends on rows alone, plus one bit: `clean`, whether this driver
//! knows that no worker started the step after the last row. A worker that takes a saga over does not know
//! it, so that step counts as maybe started, and is asked about before it is run. The exceptions are
//! a step that was left waiting for its next attempt: its row says so, and that row is taken back
//! before the attempt begins; and a local step, which happened exactly if its row says so.

mod back;

use std::collections::BTreeSet;
use std::time::Duration;

use super::shape::Shape;
use super::text::{joined, storable, storable_text};
use super::{Illegal, Trigger, transition};
use crate::policy::WhenUnknown;
use crate::record::{Change, Document, Instance, Journal, SagaId, StepRow};
use crate::status::{Status, StepStatus};

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run this step; `maybe` if it may have been started before: then ask first.
    Execute { at: usize, maybe: bool, failures: u32 },
    /// Write down that the attempt this step waits for begins now.
    Announce { at: usize },
    /// Turn back now: a step is known to have failed.
    TurnBack,
    /// Ask what became of this step before undoing it, or because it has no undo.
    Ask { at: usize },
    /// Undo this step.
    Undo { at: usize, failures: u32 },
    /// Write this end down: no step is left.
    Settle(Trigger),
    /// Leave the saga: a driver has no work.
    Stop,
}

/// The result of running a step.
#[derive(Debug, Clone)]
pub(crate) enum Finding {
    Succeeded(Document),
    /// Definitely no effect, and no further try.
    NotApplied(String),
    /// It is unknown, and no try is left.
    Unknown(String, WhenUnknown),
    /// A bug; `ran` if the step was running when it showed.
    Fatal {
        reason: String,
        ran: bool,
    },
    /// The next attempt is due later, or this worker leaves before it.
    Later {
        maybe: bool,
        error: Option<String>,
        retry_in: Duration,
    },
}

/// The result of undoing a step.
#[derive(Debug, Clone)]
pub(crate) enum Undoing {
    Done(String),
    GivenUp(String),
    Later { failures: u32, error: Option<String>, retry_in: Duration },
    Fatal(String),
}

/// A journal that no sequence of legal writes could have left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the journal is not readable as a {saga:?} saga: {what}")]
pub(crate) struct Corrupt {
    saga: String,
    what: String,
}

/// A saga in memory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) saga: SagaId,
    pub(crate) status: Status,
    pub(crate) resume: Option<Status>,
    pub(crate) reason: Option<String>,
    pub(crate) rows: Vec<Option<StepRow>>,
    /// No worker can have started the step after the last row.
    pub(crate) clean: bool,
    asked: BTreeSet<usize>,
    announced: Option<usize>,
}

impl State {
    /// Reads a journal; `clean` only if this driver inserted the saga itself and no worker drove it.
    pub(crate) fn load(shape: &Shape, journal: &Journal, clean: bool) -> Result<Self, Corrupt> {
        let Instance { saga_type, current_step, status, .. } = &journal.instance;
        let corrupt = |what: String| Corrupt { saga: saga_type.clone(), what };
        if let Some(what) = &journal.instance.unreadable {
            return Err(corrupt(what.clone()));
        }
        let mut rows: Vec<Option<StepRow>> = vec![None; shape.steps.len()];
        for row in &journal.steps {
            let at = (row.order as usize).checked_sub(1).filter(|at| *at < rows.len());
            let Some(at) = at else {
                return Err(corrupt(format!("step {} ({}) is beyond the definition", row.order, row.name)));
            };
            if shape.steps[at].name != row.name {
                let expected = shape.steps[at].name;
                return Err(corrupt(format!("step {} is {:?}, expected {expected:?}", row.order, row.name)));
            }
            let mut row = row.clone();
            let local = shape.steps[at].local;
            // Without a next attempt it is one that was announced, and may have begun.
            if row.status == StepStatus::Executing && row.retry_in.is_none() && !local {
                row.status = StepStatus::Unknown;
            }
            if row.status == StepStatus::Unknown && local {
                return Err(corrupt(format!(
                    "step {} ({}) is local, and nothing but a person's hand leaves it unknown",
                    row.order, row.name
                )));
            }
            rows[at] = Some(row);
        }
        let filled = rows.iter().take_while(|row| row.is_some()).count();
        if rows[filled..].iter().any(Option::is_some) {
            return Err(corrupt(format!("the row of step {} is missing", filled + 1)));
        }
        if *current_step as usize > filled {
            return Err(corrupt(format!(
                "it is at step {current_step}, but only {filled} step rows are there"
            )));
        }
        let open = |row: &StepRow| !matches!(row.status, StepStatus::Succeeded | StepStatus::Skipped);
        if *status == Status::Completed && (filled < rows.len() || rows.iter().flatten().any(open)) {
            return Err(corrupt("it is completed, but not every step is".into()));
        }
        Ok(Self {
            saga: journal.instance.id,
            status: *status,
            resume: journal.instance.resume_status,
            reason: journal.instance.reason.clone(),
            rows,
            clean: clean && filled == 0,
            asked: BTreeSet::new(),
            announced: None,
        })
    }

    /// Decides what the driver does next.
    pub(crate) fn next(&self, shape: &Shape) -> Next {
        match self.status {
            Status::InProgress | Status::Committing => self.next_forward(shape),
            Status::Compensating => self.next_undo(shape),
            _ => Next::Stop,
        }
    }

    fn next_forward(&self, shape: &Shape) -> Next {
        for (at, row) in self.rows.iter().enumerate() {
            let local = shape.steps[at].local;
            let Some(row) = row else {
                return Next::Execute { at, maybe: !self.clean && !local, failures: 0 };
            };
            match row.status {
                StepStatus::Succeeded | StepStatus::Skipped => {}
                StepStatus::Executing if local => {
                    return Next::Execute { at, maybe: false, failures: row.retries };
                }
                StepStatus::Failed if local && self.status == Status::Committing => {
                    return Next::Execute { at, maybe: false, failures: row.retries };
                }
                StepStatus::Unknown => return Next::Execute { at, maybe: true, failures: row.retries },
                StepStatus::Executing if self.announced == Some(at) => {
                    return Next::Execute { at, maybe: false, failures: row.retries };
                }
                StepStatus::Executing => return Next::Announce { at },
                // An operator lets a refused step past the pivot try again.
                StepStatus::Failed if self.status == Status::Committing => return Next::Announce { at },
                _ => return Next::TurnBack,
            }
        }
        Next::Settle(Trigger::AllDone)
    }

    /// The outcome of running a step, turned into one write.
    pub(crate) fn executed(
        &mut self,
        shape: &Shape,
        at: usize,
        failures: u32,
        finding: Finding,
    ) -> Result<Change, Illegal> {
        let name = shape.steps[at].name;
        match finding {
            Finding::Succeeded(output) => {
                let row = self.row(shape, at, StepStatus::Succeeded, failures);
                (row.output, row.error) = (Some(output), None);
                self.clean = true;
                if shape.steps[at].pivot && self.status == Status::InProgress {
                    self.apply(Trigger::PivotPassed)?;
                }
                if at + 1 == shape.steps.len() {
                    self.apply(Trigger::AllDone)?;
                }
            }
            Finding::NotApplied(reason) => {
                self.row(shape, at, StepStatus::Failed, failures).error = Some(reason.clone());
                let reason = format!("{name}: {reason}");
                if self.status == Status::Committing {
                    self.halt(reason)?;
                } else {
                    self.turn(shape, reason)?;
                }
            }
            Finding::Unknown(reason, choice) => {
                self.row(shape, at, StepStatus::Unknown, failures).error = Some(reason.clone());
                let reason = format!("{name}: {reason}");
                let may_turn = self.status == Status::InProgress && shape.steps[at].undo;
                if may_turn && choice == WhenUnknown::Compensate {
                    self.turn(shape, reason)?;
                } else {
                    self.halt(reason)?;
                }
            }
            Finding::Fatal { reason, ran } => {
                if ran {
                    self.row(shape, at, StepStatus::Unknown, failures).error = Some(reason.clone());
                }
                self.pause(format!("{name}: {reason}"))?;
            }
            Finding::Later { maybe, error, retry_in } => {
                let status = if maybe { StepStatus::Unknown } else { StepStatus::Executing };
                let row = self.row(shape, at, status, failures);
                (row.error, row.retry_in) = (error, Some(retry_in));
                self.announced = None;
            }
        }
        Ok(self.change(shape, &[at]))
    }

    /// Takes the row of a step back that says that nothing happened: a worker that reads it from now on does
    /// not know.
    pub(crate) fn announced(&mut self, shape: &Shape, at: usize) -> Change {
        self.announced = Some(at);
        if let Some(row) = self.rows[at].as_mut() {
            (row.status, row.retry_in) = (StepStatus::Executing, None);
        }
        self.change(shape, &[at])
    }

    /// Writes down a decision that needs no step.
    pub(crate) fn settled(&mut self, shape: &Shape, trigger: Trigger) -> Result<Change, Illegal> {
        self.settle(shape, trigger)?;
        Ok(self.change(shape, &[]))
    }

    /// Stops on request. If this driver knows that the next step has not begun, its row says so: a worker that
    /// resumes the saga would otherwise have to take it for started.
    pub(crate) fn paused(&mut self, shape: &Shape, reason: String) -> Result<Change, Illegal> {
        let forward = self.status != Status::Compensating;
        let untouched = self.frontier().filter(|at| self.clean && !shape.steps[*at].local && forward);
        let next = self.announced_only().filter(|_| forward).or(untouched);
        if let Some(at) = next {
            let failures = self.rows[at].as_ref().map_or(0, |row| row.retries);
            self.row(shape, at, StepStatus::Executing, failures).retry_in = Some(Duration::ZERO);
            self.announced = None;
        }
        self.pause(reason)?;
        Ok(self.change(shape, next.as_slice()))
    }

    /// Closes a stopped saga, with every possible effect on record.
    pub(super) fn closed(&mut self, shape: &Shape, reason: String) -> Result<Change, Illegal> {
        let forward = self.resume != Some(Status::Compensating);
        let suspect = self.suspect(shape).filter(|_| forward).map(|at| self.suspected(shape, at));
        let unresolved = self.unresolved(shape);
        self.add_reason(reason);
        self.apply(Trigger::Aborted)?;
        Ok(Change { unresolved, ..self.change(shape, suspect.as_slice()) })
    }

    /// The step whose attempt was announced by this driver, if it has not begun: its end would have changed the row.
    fn announced_only(&self) -> Option<usize> {
        let executing = |at: &usize| {
            self.rows[*at]
                .as_ref()
                .is_some_and(|row| row.status == StepStatus::Executing && row.retry_in.is_none())
        };
        self.announced.filter(executing)
    }

    /// The first step without a row, if every step before it is done: a step starts only after them.
    fn frontier(&self) -> Option<usize> {
        let done = |row: &StepRow| matches!(row.status, StepStatus::Succeeded | StepStatus::Skipped);
        let first = self.rows.iter().position(Option::is_none)?;
        self.rows.iter().flatten().all(done).then_some(first)
    }

    /// The step that may have been started without a row. A local step always has a row if it has an effect.
    fn suspect(&self, shape: &Shape) -> Option<usize> {
        self.frontier().filter(|at| !self.clean && !shape.steps[*at].local)
    }

    fn suspected(&mut self, shape: &Shape, at: usize) -> usize {
        self.row(shape, at, StepStatus::Unknown, 0).error = Some("may have been started before".into());
        at
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> (&BTreeSet<usize>, Option<usize>) {
        (&self.asked, self.announced)
    }

    pub(crate) fn change(&self, shape: &Shape, written: &[usize]) -> Change {
        let current = self.rows.iter().take_while(|row| row.is_some()).count();
        Change {
            status: self.status,
            resume_status: self.resume,
            reason: self.reason.clone().map(storable_text),
            current_step: u32::try_from(current).unwrap_or(u32::MAX),
            unresolved: self.unresolved(shape),
            steps: written.iter().filter_map(|at| self.rows[*at].clone()).map(storable).collect(),
        }
    }

    fn row(&mut self, shape: &Shape, at: usize, status: StepStatus, failures: u32) -> &mut StepRow {
        let completions = self.rows.iter().flatten().map(|row| row.completion).max().unwrap_or(0);
        let name = shape.steps[at].name;
        let row = self.rows[at].get_or_insert_with(|| StepRow {
            order: u32::try_from(at + 1).unwrap_or(u32::MAX),
            name: name.into(),
            status,
            output: None,
            evidence: None,
            error: None,
            retries: 0,
            retries_max: shape.steps[at].retries_max,
            undo_retries: 0,
            completion: completions + 1,
            retry_in: None,
            resolved_by: None,
        });
        (row.status, row.retries, row.retry_in) = (status, failures, None);
        row
    }

    pub(super) fn apply(&mut self, trigger: Trigger) -> Result<(), Illegal> {
        let from = self.status;
        self.status = transition(from, self.resume, trigger)?;
        self.resume = match self.status {
            Status::Stuck | Status::Paused => Some(from),
            _ => None,
        };
        Ok(())
    }

    fn halt(&mut self, reason: String) -> Result<(), Illegal> {
        self.add_reason(reason);
        self.apply(Trigger::Halted)
    }

    fn pause(&mut self, reason: String) -> Result<(), Illegal> {
        self.add_reason(reason);
        self.apply(Trigger::Paused)
    }

    /// A later fault never hides why the saga turned.
    pub(super) fn add_reason(&mut self, reason: String) {
        self.reason = Some(joined(self.reason.as_deref(), reason));
    }
}
