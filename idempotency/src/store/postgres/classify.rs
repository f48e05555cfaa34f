//! Reads from an error of the driver whether a statement of PostgreSQL may have written.

use std::error::Error as _;

use crate::error::{ErrorKind, Failure, StoreError};
use crate::sqlstate::{self, Condition, Outcome, SqlState};
use crate::store::sql::dialect::of_the_driver;

/// Classifies an error of the driver: of PostgreSQL, by its code and its severity.
pub(crate) fn classify(error: sqlx::Error) -> Failure {
    match error.as_database_error().map(sqlstate::of) {
        Some(state) => of_state(state, error),
        None => of_the_driver(error),
    }
}

/// Tells whether the server takes no writes on this session, or has ended it.
pub(crate) fn spends_the_session(error: &StoreError) -> bool {
    let driver = error.source().and_then(|source| source.downcast_ref::<sqlx::Error>());
    let state = driver.and_then(sqlx::Error::as_database_error).map(sqlstate::of);
    state.is_some_and(|state| state.condition == Condition::ReadOnly)
}

fn of_state(state: SqlState, error: sqlx::Error) -> Failure {
    use Condition::{
        Canceled, ConnectionLost, Deadlock, LockTimeout, NotConnected, ReadOnly, Resources, Serialization,
        SessionTimeout, TooManyConnections,
    };
    let kind = match state.condition {
        // Conflicts and lock timeouts are rolled back: a retry may succeed. So may one on another connection, and after a
        // failover on another server.
        Serialization | Deadlock | LockTimeout | ConnectionLost | NotConnected | TooManyConnections
        | SessionTimeout | ReadOnly => ErrorKind::Unavailable,
        Canceled => ErrorKind::Timeout,
        Resources => ErrorKind::Full,
        _ => ErrorKind::Rejected,
    };
    // Each statement of the store is a transaction of its own.
    match state.statement {
        Outcome::RolledBack => Failure::refused(kind, error),
        Outcome::Unknown => Failure::in_doubt(kind, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Effect, StoreError};

    // proves: I-5
    #[test]
    fn only_codes_that_are_known_to_undo_the_statement_prove_that_nothing_was_written() {
        let judged = |code: &str| {
            let state = sqlstate::read(code, sqlstate::Severity::Unsigned);
            let error = StoreError::from(of_state(state, sqlx::Error::WorkerCrashed));
            (error.kind(), error.effect())
        };
        for (code, kind) in [
            ("40001", ErrorKind::Unavailable),
            ("40P01", ErrorKind::Unavailable),
            ("55P03", ErrorKind::Unavailable),
            ("57P03", ErrorKind::Unavailable),
            ("53300", ErrorKind::Unavailable),
            ("57014", ErrorKind::Timeout),
            ("53100", ErrorKind::Full),
            ("53400", ErrorKind::Full),
            ("57P05", ErrorKind::Unavailable),
            ("08004", ErrorKind::Unavailable),
            ("25P03", ErrorKind::Unavailable),
            ("23505", ErrorKind::Rejected),
            ("25006", ErrorKind::Unavailable),
            ("42501", ErrorKind::Rejected),
            ("P0001", ErrorKind::Rejected),
        ] {
            assert_eq!(judged(code), (kind, Effect::NotApplied), "{code}");
        }
        for code in ["08006", "08P01", "25P04", "40003", "57P01", "57P02", "57P04"] {
            assert_eq!(judged(code), (ErrorKind::Unavailable, Effect::Unknown), "{code}");
        }
        for code in ["", "58030", "F0000", "HV000", "XX000", "99999"] {
            assert_eq!(judged(code), (ErrorKind::Rejected, Effect::Unknown), "{code}");
        }
    }
}
