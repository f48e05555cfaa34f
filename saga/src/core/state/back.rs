//! The way back: when a saga may turn, what it undoes next, and where it stops.
//!
//! Invariant: nothing is undone while the pivot may have happened, and, unless its policy says otherwise, nothing before
//! a step whose undo failed.

use super::{
    Change, Document, Finding, Illegal, Next, Shape, State, Status, StepRow, StepStatus, Trigger, Undoing,
    WhenUnknown, joined,
};

impl State {
    pub(super) fn next_undo(&self, shape: &Shape) -> Next {
        if let Some(next) = self.at_the_pivot(shape) {
            return next;
        }
        let undoable = |at: usize, row: &StepRow| match row.status {
            StepStatus::Succeeded | StepStatus::Compensating => shape.steps[at].undo,
            StepStatus::Unknown => shape.steps[at].undo || !self.asked.contains(&at),
            _ => false,
        };
        let rows = || self.rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_ref()?)));
        let last = rows().filter(|(at, row)| undoable(*at, row)).max_by_key(|(_, row)| row.completion);
        let failed = |(at, row): (usize, &StepRow)| {
            row.status == StepStatus::CompensationFailed && shape.steps[at].holds_undo
        };
        match last {
            None if self.unresolved(shape) == 0 => Next::Settle(Trigger::AllUndone),
            None => Next::Settle(Trigger::Halted),
            Some((_, next)) if rows().any(|row| failed(row) && row.1.completion > next.completion) => {
                Next::Settle(Trigger::Halted)
            }
            Some((at, row)) if row.status == StepStatus::Unknown && !self.asked.contains(&at) => {
                Next::Ask { at }
            }
            Some((at, row)) => Next::Undo { at, failures: row.undo_retries },
        }
    }

    /// A saga that turned back has not passed its pivot: a turn waits for that to be known. A version before this one
    /// turned without waiting, and a person may find out later.
    fn at_the_pivot(&self, shape: &Shape) -> Option<Next> {
        let mut rows = self.rows.iter().enumerate().filter(|(at, _)| shape.is_final(*at));
        rows.find_map(|(at, row)| match row.as_ref()?.status {
            StepStatus::Unknown | StepStatus::Executing if !self.asked.contains(&at) => {
                Some(Next::Ask { at })
            }
            StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated => None,
            _ => Some(Next::Settle(Trigger::Halted)),
        })
    }

    /// The pivot, if the saga could still turn back but for it: it may have happened, and that is unknown.
    pub(crate) fn pivot_in_doubt(&self, shape: &Shape) -> Option<usize> {
        let stands = self.resume.unwrap_or(self.status);
        let pivot = shape.pivot().filter(|_| matches!(stands, Status::Pending | Status::InProgress))?;
        let unknown = self.rows[pivot].as_ref().is_some_and(|row| row.status == StepStatus::Unknown);
        (unknown || self.suspect(shape) == Some(pivot)).then_some(pivot)
    }

    /// Turns back on request, or because a failed step is on record. Never while the pivot is in doubt.
    pub(crate) fn turned(&mut self, shape: &Shape, reason: String) -> Result<Change, Illegal> {
        if self.pivot_in_doubt(shape).is_some() {
            return Err(Illegal { from: self.status, trigger: Trigger::TurnedBack });
        }
        let mut written = Vec::new();
        let suspect = self.suspect(shape);
        for (at, row) in self.rows.iter_mut().enumerate() {
            // The step waited for an attempt that will not be made.
            if let Some(row) = row.as_mut().filter(|row| row.status == StepStatus::Executing) {
                (row.status, row.retry_in) = (StepStatus::Failed, None);
                written.push(at);
            }
        }
        written.extend(suspect.map(|at| self.suspected(shape, at)));
        self.turn(shape, reason)?;
        Ok(self.change(shape, &written))
    }

    /// Turns back on request if the pivot, which was in doubt, proved not to have happened; goes on if it has happened;
    /// and stops where that is unknown.
    pub(crate) fn turned_unless_past(
        &mut self,
        shape: &Shape,
        pivot: usize,
        failures: u32,
        found: Finding,
        reason: String,
    ) -> Result<Change, Illegal> {
        match found {
            Finding::NotApplied(_) => {
                self.row(shape, pivot, StepStatus::Failed, failures);
                self.turn(shape, reason)?;
                Ok(self.change(shape, &[pivot]))
            }
            Finding::Unknown(reason, _) => {
                let reason = format!("it may have happened, so nothing is undone ({reason})");
                self.executed(shape, pivot, failures, Finding::Unknown(reason, WhenUnknown::Stick))
            }
            found => self.executed(shape, pivot, failures, found),
        }
    }

    /// Takes what a probe answered about an unknown step of a saga that turned back. `None` if nothing is new.
    pub(crate) fn asked(
        &mut self,
        shape: &Shape,
        at: usize,
        applied: Option<Option<Document>>,
    ) -> Option<Change> {
        self.asked.insert(at);
        let answer = applied?;
        let row = self.rows[at].as_mut()?;
        row.status = if answer.is_some() { StepStatus::Succeeded } else { StepStatus::Failed };
        row.output = answer;
        Some(self.change(shape, &[at]))
    }

    /// The outcome of an undo, turned into one write.
    pub(crate) fn undone(&mut self, shape: &Shape, at: usize, undoing: Undoing) -> Result<Change, Illegal> {
        let name = shape.steps[at].name;
        let retry_in = match &undoing {
            Undoing::Later { retry_in, .. } => Some(*retry_in),
            _ => None,
        };
        if let Some(row) = self.rows[at].as_mut() {
            row.retry_in = retry_in;
            match &undoing {
                Undoing::Done(evidence) => {
                    row.status = StepStatus::Compensated;
                    row.evidence = Some(evidence.clone());
                }
                Undoing::GivenUp(reason) => {
                    row.status = StepStatus::CompensationFailed;
                    row.error = Some(reason.clone());
                }
                Undoing::Later { failures, error, .. } => {
                    // The stored output still tells an applied effect from an unknown one.
                    row.status = StepStatus::Compensating;
                    row.undo_retries = *failures;
                    row.error = error.clone();
                }
                Undoing::Fatal(reason) => row.error = Some(reason.clone()),
            }
        }
        match undoing {
            Undoing::GivenUp(reason) => self.add_reason(format!("undo of {name}: {reason}")),
            Undoing::Fatal(reason) => self.pause(format!("undo of {name}: {reason}"))?,
            Undoing::Done(_) | Undoing::Later { .. } => {}
        }
        if let (Status::Compensating, Next::Settle(trigger)) = (self.status, self.next(shape)) {
            self.settle(shape, trigger)?;
        }
        Ok(self.change(shape, &[at]))
    }

    /// Counts the effects that are open.
    pub(crate) fn unresolved(&self, shape: &Shape) -> u32 {
        let turned = [self.resume.unwrap_or(self.status), self.status].contains(&Status::Compensating);
        let open = |(at, row): (usize, &Option<StepRow>)| match row.as_ref().map(|row| row.status) {
            Some(StepStatus::Succeeded) => turned && (shape.steps[at].undo || shape.is_final(at)),
            // `Executing` is, in memory, a step that waits for its next attempt.
            Some(
                StepStatus::Executing | StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated,
            )
            | None => false,
            Some(_) => true,
        };
        let count = self.rows.iter().enumerate().filter(|(at, row)| open((*at, row))).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn turn(&mut self, shape: &Shape, reason: String) -> Result<(), Illegal> {
        self.reason = Some(joined(None, reason));
        let harmless = |at: usize, row: &StepRow| match row.status {
            StepStatus::Succeeded => !shape.steps[at].undo && !shape.is_final(at),
            StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated => true,
            _ => false,
        };
        let nothing =
            self.rows.iter().enumerate().all(|(at, row)| row.as_ref().is_none_or(|row| harmless(at, row)));
        self.apply(if nothing { Trigger::NothingToUndo } else { Trigger::TurnedBack })
    }

    pub(super) fn settle(&mut self, shape: &Shape, trigger: Trigger) -> Result<(), Illegal> {
        if trigger == Trigger::Halted {
            let happened = |at: &usize| {
                let row = self.rows[*at].as_ref();
                shape.is_final(*at) && row.is_some_and(|row| row.status == StepStatus::Succeeded)
            };
            if let Some(at) = (0..self.rows.len()).find(happened) {
                self.add_reason(no_way_back(shape.steps[at].name));
            } else if self.rows.iter().flatten().any(|row| row.status == StepStatus::Unknown) {
                self.add_reason("a step without undo may have happened".into());
            }
        }
        self.apply(trigger)
    }
}

/// Said of a saga that turned back although its pivot happened.
pub(in crate::core) fn no_way_back(pivot: &str) -> String {
    format!(
        "{pivot} has happened, after which nothing may be undone: take it back by hand and resolve it as compensated, or \
         close the saga and settle it by hand"
    )
}
