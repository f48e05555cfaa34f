//! The pure heart: which state follows which, and what a journal means. No async, no clock, no IO.
//!
//! Invariant: every status change of a saga is one row of [`TRANSITIONS`], whoever asks for it;
//! stores enforce the same with the writer's `from` status, its epoch, and CHECK constraints.
//! Start at [`Status`] and the table; `state.rs` turns journal rows into the next thing to do.

mod shape;
mod state;
mod text;
mod verbs;

use std::fmt;
use std::str::FromStr;

pub(crate) use shape::{Shape, StepShape};
pub(crate) use state::{Finding, Next, State, Undoing};
pub(crate) use text::joined;
pub use verbs::Resolution;
pub(crate) use verbs::{VerbError, abort, compensate, find_out, resolve, resume, retry};

/// Where a saga stands. The names are stored and shown; what each asks of an operator is in the
/// guide's chapter on operating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Created; nobody drove it yet.
    Pending,
    /// Going forward; may still turn back.
    InProgress,
    /// Past the pivot: goes forward only.
    Committing,
    /// Turned back; undoing. Never goes forward again.
    Compensating,
    /// Cannot proceed; a person must decide. Not terminal.
    Stuck,
    /// Stopped by an operator, a fatal error, or the poison limit. Not terminal.
    Paused,
    /// Every step happened.
    Completed,
    /// Every effect was undone, and each undo left evidence.
    Compensated,
    /// Closed by an operator with open effects listed. Never equal to compensated.
    Aborted,
}

impl Status {
    /// Every status, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::InProgress,
        Self::Committing,
        Self::Compensating,
        Self::Stuck,
        Self::Paused,
        Self::Completed,
        Self::Compensated,
        Self::Aborted,
    ];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Committing => "committing",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing will ever change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Aborted)
    }

    /// Whether a worker drives it, or should.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress | Self::Committing | Self::Compensating)
    }
}

/// Where a step stands. No row means: not started, as far as anyone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepStatus {
    /// With a time of its next attempt: nothing has happened yet, and it waits. Without: an attempt after
    /// such a wait has been announced; whoever reads it must treat it as unknown.
    Executing,
    /// It happened.
    Succeeded,
    /// It definitely did not happen.
    Failed,
    /// It may have happened.
    Unknown,
    /// Its condition was false.
    Skipped,
    /// Being undone.
    Compensating,
    /// Undone, with evidence.
    Compensated,
    /// Its undo was tried as often as allowed, or was refused.
    CompensationFailed,
}

impl StepStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Executing,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Skipped,
        Self::Compensating,
        Self::Compensated,
        Self::CompensationFailed,
    ];

    /// The stored name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executing => "executing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::CompensationFailed => "compensation_failed",
        }
    }
}

/// A stored status name that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a status this version knows")]
pub struct UnknownStatus(String);

macro_rules! by_name {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = UnknownStatus;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .into_iter()
                    .find(|status| status.as_str() == text)
                    .ok_or_else(|| UnknownStatus(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

by_name!(Status);
by_name!(StepStatus);

/// Why a status changes.
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
    /// As `TurnedBack`, with nothing to undo.
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
    /// Why.
    pub trigger: Trigger,
    /// After.
    pub target: Target,
}

const fn row(from: Status, trigger: Trigger, to: Status) -> Transition {
    Transition { from, trigger, target: Target::To(to) }
}

/// Every legal transition. What is not here is illegal; in particular nothing leaves a terminal
/// status, nothing leads from `committing` to an undo, and nothing from `compensating` forward.
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
    /// Where it stood.
    pub from: Status,
    /// What was asked.
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
