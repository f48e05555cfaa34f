//! What an error of the database means for the transaction: tables, and how they are read.
//!
//! Invariant: no I/O, no clock. The runner decides with [`Class`] alone; a new code is a new row.

use std::error::Error as StdError;
use std::fmt;

use sqlx::error::DatabaseError;

#[cfg(feature = "postgres")]
use crate::sqlstate::{self, Condition};

mod tables;
#[cfg(test)]
mod tests;

/// The meaning of a database error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The transaction could not be placed in a serial order (PostgreSQL 40001).
    Serialization,
    /// The database ended a deadlock at our expense (PostgreSQL 40P01).
    Deadlock,
    /// Another connection writes, or our snapshot is stale (SQLite BUSY, LOCKED, BUSY_SNAPSHOT).
    Busy,
    /// A lock was not granted in time, or not at once (PostgreSQL 55P03).
    LockTimeout,
    /// The connection is gone or the server is going.
    ConnectionLost,
    /// The server ended the session because the transaction idled or lasted too long (PostgreSQL 25P03, 25P04).
    SessionTimeout,
    /// The server takes no writes: a standby, or one that is read-only by default (PostgreSQL 25006).
    ReadOnly,
    /// A statement ran into its timeout or was cancelled.
    Timeout,
    /// A constraint refused the data.
    Constraint,
    /// The transaction was already aborted by an earlier error.
    Aborted,
    /// The server is out of something: connections, memory, disk.
    Overloaded,
    /// The storage failed or is damaged.
    Storage,
    /// A cached plan no longer fits the schema (PostgreSQL 0A000 after a migration).
    StalePlan,
    /// Anything else: the statement itself is at fault.
    Other,
}

impl Class {
    /// Reads a PostgreSQL SQLSTATE.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn of_sqlstate(sqlstate: &str) -> Self {
        match sqlstate::read(sqlstate).condition {
            Condition::Serialization => Self::Serialization,
            Condition::Deadlock => Self::Deadlock,
            Condition::LockTimeout => Self::LockTimeout,
            Condition::Canceled => Self::Timeout,
            Condition::ConnectionLost | Condition::NotConnected => Self::ConnectionLost,
            Condition::SessionTimeout => Self::SessionTimeout,
            Condition::ReadOnly => Self::ReadOnly,
            Condition::Constraint => Self::Constraint,
            Condition::Aborted => Self::Aborted,
            Condition::StalePlan => Self::StalePlan,
            Condition::Resources | Condition::TooManyConnections => Self::Overloaded,
            Condition::Storage | Condition::Corrupt => Self::Storage,
            Condition::Data | Condition::Forbidden | Condition::Statement | Condition::Unrecognized => {
                Self::Other
            }
        }
    }

    /// Reads a SQLite result code, extended or primary: the extended row wins.
    #[must_use]
    pub fn of_sqlite_code(code: &str) -> Self {
        let Ok(code) = code.parse::<u32>() else {
            return Self::Other;
        };
        let find = |wanted: u32| {
            tables::SQLITE_CODES.iter().find(|&&(code, _)| code == wanted).map(|&(_, class)| class)
        };
        // The primary code is the low byte of an extended one.
        find(code).or_else(|| find(code & 0xff)).unwrap_or(Self::Other)
    }

    /// A short name for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serialization => "serialization",
            Self::Deadlock => "deadlock",
            Self::Busy => "busy",
            Self::LockTimeout => "lock_timeout",
            Self::ConnectionLost => "connection_lost",
            Self::SessionTimeout => "session_timeout",
            Self::ReadOnly => "read_only",
            Self::Timeout => "timeout",
            Self::Constraint => "constraint",
            Self::Aborted => "aborted",
            Self::Overloaded => "overloaded",
            Self::Storage => "storage",
            Self::StalePlan => "stale_plan",
            Self::Other => "other",
        }
    }
}

/// A database error as the runner saw it pass: its meaning, its code and its message.
///
/// A copy rather than the error itself, because the error belongs to the closure that received it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    class: Class,
    code: Option<Box<str>>,
    message: Box<str>,
}

impl Failure {
    /// Reads a driver error with the code table of its database.
    pub(crate) fn read(error: &sqlx::Error, table: fn(&str) -> Class) -> Self {
        let (class, code) = match error {
            sqlx::Error::Database(database) => {
                let code = database.code();
                let class = match code.as_deref().map_or(Class::Other, table) {
                    Class::StalePlan if !from_the_plan_cache(&**database) => Class::Other,
                    class => class,
                };
                (class, code.map(|code| code.as_ref().into()))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => (Class::ConnectionLost, None),
            _ => (Class::Other, None),
        };
        Self { class, code, message: error.to_string().into() }
    }

    /// A failure that no database reported.
    pub(crate) fn local(class: Class, message: &str) -> Self {
        Self { class, code: None, message: message.into() }
    }

    /// The same failure, read by somebody who knows more.
    pub(crate) fn with_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// The same failure in other words.
    pub(crate) fn with_message(self, words: &impl fmt::Display) -> Self {
        Self { message: words.to_string().into(), ..self }
    }

    /// What it means.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The database's own code: SQLSTATE on PostgreSQL, the extended result code on SQLite.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

/// Whether "feature not supported" comes from the cache of plans: the code alone means many things.
fn from_the_plan_cache(error: &dyn DatabaseError) -> bool {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        // A message would be in the server's language. Who names no routine is believed.
        return error.routine().is_none_or(|routine| routine == "RevalidateCachedQuery");
    }
    let _ = error;
    true
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Without the message: it may quote data.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("class", &self.class)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl StdError for Failure {}

/// Finds the first driver error in the chain of sources of `error`.
///
/// The runner does not need it, because it sees every statement error itself; it serves code that
/// classifies errors of its own pools.
#[must_use]
pub fn driver_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e sqlx::Error> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<sqlx::Error>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}
