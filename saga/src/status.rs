//! The statuses of a saga and of its steps, with their stored names.
//!
//! Invariant: the names are stored in every database. None is ever renamed.

use std::fmt;
use std::str::FromStr;

/// The status of a saga. The names are stored and shown; what each asks of an operator is in the
/// guide's chapter on operating.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Created; no worker drove it yet.
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

    /// Tells whether nothing will ever change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Aborted)
    }

    /// Tells whether a worker drives it, or should.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Pending | Self::InProgress | Self::Committing | Self::Compensating)
    }
}

/// The status of a step. A step without a row has not started, as far as the store knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepStatus {
    /// With a time of its next attempt: nothing has happened yet, and it waits. Without: an attempt after
    /// such a wait has been announced; a reader must treat it as unknown.
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
