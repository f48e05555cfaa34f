//! The table of transitions: every change that the status of a saga may make.
//!
//! Invariant: every status change is one row of [`TRANSITIONS`]; stores enforce the same with the writer's `from` status,
//! its epoch, and CHECK constraints.

use crate::status::Status;
pub use crate::status::UnknownStatus;

/// The reason for which a status changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// A worker takes it up for the first time.
    Claimed,
    /// The pivot step succeeded.
    PivotPassed,
    /// The last step succeeded.
    AllDone,
    /// A step was refused, the deadline passed, or an operator asked; there is something to undo.
    TurnedBack,
    /// The same as `TurnedBack`, with nothing to undo.
    NothingToUndo,
    /// The last undo succeeded.
    AllUndone,
    /// It cannot proceed.
    Halted,
    /// An operator, a fatal error, or the poison limit stopped it.
    Paused,
    /// An operator lets a stuck saga try again, or settled a step with evidence.
    Retried,
    /// An operator lets a paused saga go on.
    Resumed,
    /// An operator closes it with open effects.
    Aborted,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 11] = [
        Self::Claimed,
        Self::PivotPassed,
        Self::AllDone,
        Self::TurnedBack,
        Self::NothingToUndo,
        Self::AllUndone,
        Self::Halted,
        Self::Paused,
        Self::Retried,
        Self::Resumed,
        Self::Aborted,
    ];
}

/// The target of a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This status.
    To(Status),
    /// The status it had before it was stopped.
    Resume,
    /// This status, if it was stopped in one from which turning back is legal.
    IfForward(Status),
}

/// One legal transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Status,
    /// The reason.
    pub trigger: Trigger,
    /// After.
    pub target: Target,
}

const fn row(from: Status, trigger: Trigger, to: Status) -> Transition {
    Transition { from, trigger, target: Target::To(to) }
}

/// Every legal transition. Every other transition is illegal. In particular no transition leaves a terminal status,
/// leads from `committing` to an undo, or from `compensating` forward.
pub const TRANSITIONS: &[Transition] = &[
    row(Status::Pending, Trigger::Claimed, Status::InProgress),
    row(Status::Pending, Trigger::NothingToUndo, Status::Compensated),
    row(Status::Pending, Trigger::Paused, Status::Paused),
    row(Status::InProgress, Trigger::PivotPassed, Status::Committing),
    row(Status::InProgress, Trigger::AllDone, Status::Completed),
    row(Status::InProgress, Trigger::TurnedBack, Status::Compensating),
    row(Status::InProgress, Trigger::NothingToUndo, Status::Compensated),
    row(Status::InProgress, Trigger::Halted, Status::Stuck),
    row(Status::InProgress, Trigger::Paused, Status::Paused),
    row(Status::Committing, Trigger::AllDone, Status::Completed),
    row(Status::Committing, Trigger::Halted, Status::Stuck),
    row(Status::Committing, Trigger::Paused, Status::Paused),
    row(Status::Compensating, Trigger::AllUndone, Status::Compensated),
    row(Status::Compensating, Trigger::Halted, Status::Stuck),
    row(Status::Compensating, Trigger::Paused, Status::Paused),
    Transition { from: Status::Stuck, trigger: Trigger::Retried, target: Target::Resume },
    Transition {
        from: Status::Stuck,
        trigger: Trigger::TurnedBack,
        target: Target::IfForward(Status::Compensating),
    },
    row(Status::Stuck, Trigger::Aborted, Status::Aborted),
    Transition { from: Status::Paused, trigger: Trigger::Resumed, target: Target::Resume },
    Transition {
        from: Status::Paused,
        trigger: Trigger::TurnedBack,
        target: Target::IfForward(Status::Compensating),
    },
    Transition {
        from: Status::Paused,
        trigger: Trigger::NothingToUndo,
        target: Target::IfForward(Status::Compensated),
    },
    row(Status::Paused, Trigger::Aborted, Status::Aborted),
];

/// A change that [`TRANSITIONS`] does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a saga that is {from} cannot be {trigger:?}")]
pub struct Illegal {
    /// The status of the saga.
    pub from: Status,
    /// The change that was asked for.
    pub trigger: Trigger,
}

/// The status after `trigger`; `resume` is where a stopped saga came from.
///
/// # Errors
/// [`Illegal`] for everything the table does not contain.
pub fn transition(from: Status, resume: Option<Status>, trigger: Trigger) -> Result<Status, Illegal> {
    let illegal = Illegal { from, trigger };
    let found = TRANSITIONS.iter().find(|row| row.from == from && row.trigger == trigger).ok_or(illegal)?;
    match (found.target, resume) {
        (Target::To(status), _) => Ok(status),
        (Target::Resume, Some(resume)) => Ok(resume),
        (Target::IfForward(status), Some(Status::Pending | Status::InProgress)) => Ok(status),
        _ => Err(illegal),
    }
}
