//! The classes of database errors. The runner decides with [`Class`] alone; each backend reads its codes into one.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_has_a_name_of_its_own_for_metrics() {
        let names =
            [Class::Serialization, Class::LockTimeout, Class::StalePlan, Class::Other].map(Class::name);
        assert_eq!(names, ["serialization", "lock_timeout", "stale_plan", "other"]);
    }
}
