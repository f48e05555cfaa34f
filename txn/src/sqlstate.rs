//! The meaning of PostgreSQL's error codes (SQLSTATE).
//!
//! The file is the same in every crate of the family, so that no two of them judge one code differently.
//! Source: PostgreSQL documentation, Appendix A, "PostgreSQL Error Codes".
//!
//! Invariant: no I/O, no clock. A code that is judged anew is a row of [`TABLE`], and nothing else.

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use self::Condition::{
    Aborted, Canceled, ConnectionLost, Constraint, Corrupt, Data, Deadlock, Forbidden, LockTimeout,
    NotConnected, ReadOnly, Resources, Serialization, SessionTimeout, StalePlan, Statement, Storage,
    TooManyConnections, Unrecognized,
};
use self::Outcome::{RolledBack, Unknown};

/// The condition that a code names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The transaction has no place in a serial order.
    Serialization,
    /// The server ended a deadlock at the expense of this transaction.
    Deadlock,
    /// A lock was not granted in time, or not at once.
    LockTimeout,
    /// The statement ran into its timeout, or was cancelled.
    Canceled,
    /// The connection broke, or the server ended the session under it.
    ConnectionLost,
    /// There was no session: the server is starting or stopping, or could not be reached.
    NotConnected,
    /// The server has no connection left to give.
    TooManyConnections,
    /// The server ended the session because it idled, or its transaction lasted, for too long.
    SessionTimeout,
    /// The server takes no writes: a standby, or one that is read-only by default.
    ReadOnly,
    /// A constraint refused the data.
    Constraint,
    /// The data do not fit: a value, a limit, or an exception of a function.
    Data,
    /// The role lacks a right. A policy may refuse single rows.
    Forbidden,
    /// The statement does not fit the database: its text, a missing table, the state of the session.
    Statement,
    /// An earlier error had aborted the transaction.
    Aborted,
    /// A cached plan may no longer fit the schema.
    StalePlan,
    /// The server lacks disk, memory or another resource.
    Resources,
    /// The server could not read or write its files.
    Storage,
    /// A page of a table or an index is damaged.
    Corrupt,
    /// The code stands in no row: an error of the server's inside, or of something between.
    Unrecognized,
}

/// The state in which a code leaves the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The database keeps nothing of it.
    RolledBack,
    /// The code does not say whether it was committed.
    Unknown,
}

/// The reading of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SqlState {
    /// The condition that it names.
    pub(crate) condition: Condition,
    /// The outcome of a statement that is a transaction of its own and was answered with the code.
    pub(crate) statement: Outcome,
    /// The outcome of a transaction whose COMMIT was answered with the code.
    pub(crate) commit: Outcome,
}

/// The sender's word about the session, beside the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// An ERROR of the server itself, which names the routine that raised it. The session goes on.
    Error,
    /// An ERROR of a sender that names no routine, such as a pooler.
    Unsigned,
    /// FATAL or PANIC: the session ends, or the whole server.
    Fatal,
}

/// Reads the severity of an error, and the routine that raised it.
fn severity(severity: PgSeverity, routine: Option<&str>) -> Severity {
    match severity {
        PgSeverity::Fatal | PgSeverity::Panic => Severity::Fatal,
        _ if routine.is_some() => Severity::Error,
        _ => Severity::Unsigned,
    }
}

/// Reads the answer of a database.
pub(crate) fn of(error: &dyn DatabaseError) -> SqlState {
    let server = error.try_downcast_ref::<PgDatabaseError>();
    let severity = server.map_or(Severity::Unsigned, |error| severity(error.severity(), error.routine()));
    read(error.code().as_deref().unwrap_or_default(), severity)
}

/// Reads a code: of the prefixes in the table, the longest decides, and then the severity.
///
/// - An ERROR of the server has rolled the transaction back, with any code.
/// - FATAL and PANIC may come from the midst of a COMMIT, with the code of what went wrong there: a disk that is full
///   after the commit record was flushed is PANIC 53100, and the recovery commits. Only [`BEFORE`] proves the contrary.
pub(crate) fn read(code: &str, severity: Severity) -> SqlState {
    let row =
        TABLE.iter().filter(|(prefix, ..)| code.starts_with(prefix)).max_by_key(|(prefix, ..)| prefix.len());
    let (condition, statement, commit) = match row {
        Some(&(_, condition, statement, commit)) => (condition, statement, commit),
        // A server that answers with an unknown code has not said that it rolled back.
        None => (Unrecognized, Unknown, Unknown),
    };
    match severity {
        Severity::Unsigned => SqlState { condition, statement, commit },
        Severity::Error if condition == ConnectionLost => SqlState { condition, statement, commit },
        Severity::Error => SqlState { condition, statement: RolledBack, commit: RolledBack },
        Severity::Fatal => {
            let is_before = BEFORE.iter().any(|prefix| code.starts_with(prefix));
            let commit = if code == "25P03" { commit } else { Unknown };
            SqlState { condition, statement: if is_before { statement } else { Unknown }, commit }
        }
    }
}

/// The codes with which the server ends a session before it reads a statement: no connection was made, or it idled.
const BEFORE: [&str; 8] = ["08001", "08004", "25P03", "28", "3D", "53300", "57P03", "57P05"];

/// Five characters name one condition, two a class, three the class 57P of a server that ends sessions.
///
/// The outcomes are those of an ERROR, or of a session that ended before the statement was read; see [`read`].
/// Columns: prefix, condition, outcome of a statement of its own, outcome of a COMMIT.
const TABLE: &[(&str, Condition, Outcome, Outcome)] = &[
    ("08", ConnectionLost, Unknown, Unknown),
    ("08001", NotConnected, RolledBack, Unknown), // the client could not connect, so it sent nothing
    ("08004", NotConnected, RolledBack, Unknown), // the server rejected the connection
    ("09", Data, RolledBack, RolledBack),         // triggered_action_exception
    ("0A", Statement, RolledBack, RolledBack),    // feature_not_supported
    ("0A000", StalePlan, RolledBack, RolledBack), // also sent for a cached plan whose result type changed
    ("20", Data, RolledBack, RolledBack),         // case_not_found
    ("21", Data, RolledBack, RolledBack),         // cardinality_violation
    ("22", Data, RolledBack, RolledBack),         // data_exception
    ("23", Constraint, RolledBack, RolledBack),
    ("24", Statement, RolledBack, RolledBack), // invalid_cursor_state
    ("25", Statement, RolledBack, RolledBack), // invalid_transaction_state
    ("25006", ReadOnly, RolledBack, RolledBack),
    ("25P02", Aborted, RolledBack, RolledBack),
    // idle_in_transaction_session_timeout: the server ends the session before it reads what was sent to it.
    ("25P03", SessionTimeout, RolledBack, RolledBack),
    // transaction_timeout: it may strike in the midst of a COMMIT.
    ("25P04", SessionTimeout, Unknown, Unknown),
    ("26", Statement, RolledBack, RolledBack), // invalid_sql_statement_name
    ("27", Data, RolledBack, RolledBack),      // triggered_data_change_violation
    ("28", Statement, RolledBack, RolledBack), // invalid_authorization_specification
    ("2B", Statement, RolledBack, RolledBack), // dependent_privilege_descriptors_still_exist
    ("2F", Data, RolledBack, RolledBack),      // sql_routine_exception
    ("34", Statement, RolledBack, RolledBack), // invalid_cursor_name
    ("38", Data, RolledBack, RolledBack),      // external_routine_exception
    ("39", Data, RolledBack, RolledBack),      // external_routine_invocation_exception
    ("3B", Statement, RolledBack, RolledBack), // savepoint_exception
    ("3D", Statement, RolledBack, RolledBack), // invalid_catalog_name
    ("3F", Statement, RolledBack, RolledBack), // invalid_schema_name
    ("40", Serialization, RolledBack, RolledBack),
    ("40002", Constraint, RolledBack, RolledBack), // transaction_integrity_constraint_violation
    ("40003", ConnectionLost, Unknown, Unknown),   // statement_completion_unknown
    ("40P01", Deadlock, RolledBack, RolledBack),
    ("42", Statement, RolledBack, RolledBack), // syntax error, undefined or ambiguous object
    ("42501", Forbidden, RolledBack, RolledBack),
    ("44", Data, RolledBack, RolledBack), // with_check_option_violation
    ("53", Resources, RolledBack, RolledBack), // disk, memory, a configured limit
    ("53300", TooManyConnections, RolledBack, Unknown),
    ("54", Data, RolledBack, RolledBack),      // program_limit_exceeded
    ("55", Statement, RolledBack, RolledBack), // object_not_in_prerequisite_state
    ("55P03", LockTimeout, RolledBack, RolledBack),
    ("57014", Canceled, RolledBack, RolledBack),
    ("57P", ConnectionLost, Unknown, Unknown), // admin_shutdown, crash_shutdown, database_dropped
    // cannot_connect_now: the server answers a connection attempt with it, before any statement.
    ("57P03", NotConnected, RolledBack, Unknown),
    // idle_session_timeout: as 25P03, but it ends sessions that are in no transaction.
    ("57P05", ConnectionLost, RolledBack, Unknown),
    ("58", Storage, Unknown, Unknown),    // system_error
    ("P0", Data, RolledBack, RolledBack), // plpgsql_error, RAISE
    ("XX001", Corrupt, Unknown, Unknown), // data_corrupted
    ("XX002", Corrupt, Unknown, Unknown), // index_corrupted
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes as the server sends them, one at least for each row of the table, and their reading.
    const JUDGED: &[(&str, Condition, Outcome, Outcome)] = &[
        ("08000", ConnectionLost, Unknown, Unknown),
        ("08001", NotConnected, RolledBack, Unknown),
        ("08003", ConnectionLost, Unknown, Unknown),
        ("08004", NotConnected, RolledBack, Unknown),
        ("08006", ConnectionLost, Unknown, Unknown),
        ("08007", ConnectionLost, Unknown, Unknown),
        ("08P01", ConnectionLost, Unknown, Unknown),
        ("09000", Data, RolledBack, RolledBack),
        ("0A001", Statement, RolledBack, RolledBack),
        ("0A000", StalePlan, RolledBack, RolledBack),
        ("20000", Data, RolledBack, RolledBack),
        ("21000", Data, RolledBack, RolledBack),
        ("22021", Data, RolledBack, RolledBack),
        ("23505", Constraint, RolledBack, RolledBack),
        ("23514", Constraint, RolledBack, RolledBack),
        ("24000", Statement, RolledBack, RolledBack),
        ("25001", Statement, RolledBack, RolledBack),
        ("25006", ReadOnly, RolledBack, RolledBack),
        ("25P02", Aborted, RolledBack, RolledBack),
        ("25P03", SessionTimeout, RolledBack, RolledBack),
        ("25P04", SessionTimeout, Unknown, Unknown),
        ("26000", Statement, RolledBack, RolledBack),
        ("27000", Data, RolledBack, RolledBack),
        ("28P01", Statement, RolledBack, RolledBack),
        ("2BP01", Statement, RolledBack, RolledBack),
        ("2F005", Data, RolledBack, RolledBack),
        ("34000", Statement, RolledBack, RolledBack),
        ("38000", Data, RolledBack, RolledBack),
        ("39000", Data, RolledBack, RolledBack),
        ("3B001", Statement, RolledBack, RolledBack),
        ("3D000", Statement, RolledBack, RolledBack),
        ("3F000", Statement, RolledBack, RolledBack),
        ("40001", Serialization, RolledBack, RolledBack),
        ("40002", Constraint, RolledBack, RolledBack),
        ("40003", ConnectionLost, Unknown, Unknown),
        ("40P01", Deadlock, RolledBack, RolledBack),
        ("42501", Forbidden, RolledBack, RolledBack),
        ("42P01", Statement, RolledBack, RolledBack),
        ("44000", Data, RolledBack, RolledBack),
        ("53100", Resources, RolledBack, RolledBack),
        ("53200", Resources, RolledBack, RolledBack),
        ("53300", TooManyConnections, RolledBack, Unknown),
        ("53400", Resources, RolledBack, RolledBack),
        ("54000", Data, RolledBack, RolledBack),
        ("55006", Statement, RolledBack, RolledBack),
        ("55P03", LockTimeout, RolledBack, RolledBack),
        ("57014", Canceled, RolledBack, RolledBack),
        ("57P01", ConnectionLost, Unknown, Unknown),
        ("57P02", ConnectionLost, Unknown, Unknown),
        ("57P03", NotConnected, RolledBack, Unknown),
        ("57P04", ConnectionLost, Unknown, Unknown),
        ("57P05", ConnectionLost, RolledBack, Unknown),
        ("58030", Storage, Unknown, Unknown),
        ("P0001", Data, RolledBack, RolledBack),
        ("XX001", Corrupt, Unknown, Unknown),
        ("XX002", Corrupt, Unknown, Unknown),
        // Errors inside the server, of a foreign server, of its configuration, and codes that do not exist.
        ("XX000", Unrecognized, Unknown, Unknown),
        ("HV000", Unrecognized, Unknown, Unknown),
        ("F0000", Unrecognized, Unknown, Unknown),
        ("57000", Unrecognized, Unknown, Unknown),
        ("99999", Unrecognized, Unknown, Unknown),
        ("", Unrecognized, Unknown, Unknown),
    ];

    #[test]
    fn fatal_and_panic_end_the_session_and_an_error_without_a_routine_is_not_the_servers() {
        for (given, routine, expected) in [
            (PgSeverity::Fatal, Some("ProcessInterrupts"), Severity::Fatal),
            (PgSeverity::Panic, None, Severity::Fatal),
            (PgSeverity::Error, Some("errorMissingColumn"), Severity::Error),
            (PgSeverity::Error, None, Severity::Unsigned),
        ] {
            assert_eq!(severity(given, routine), expected, "{given:?} {routine:?}");
        }
    }

    #[test]
    fn each_code_has_its_condition_and_leaves_its_outcome() {
        for &(code, condition, statement, commit) in JUDGED {
            assert_eq!(read(code, Severity::Unsigned), SqlState { condition, statement, commit }, "{code}");
        }
    }

    #[test]
    fn an_error_of_the_server_has_rolled_back_with_any_code() {
        for code in ["XX000", "XX001", "58030", "BK001", "2D000", "HV000", "53100", "23505", "40001", ""] {
            let SqlState { statement, commit, .. } = read(code, Severity::Error);
            assert_eq!((statement, commit), (RolledBack, RolledBack), "{code}");
        }
        for code in ["08006", "40003", "57P01"] {
            let SqlState { statement, commit, .. } = read(code, Severity::Error);
            assert_eq!((statement, commit), (Unknown, Unknown), "{code}");
        }
    }

    #[test]
    fn an_end_of_the_session_proves_a_rollback_only_if_it_came_before_the_statement() {
        for code in ["53100", "53000", "42501", "42809", "40001", "57014", "25P04", "57P01", "XX000", "BK001"]
        {
            let SqlState { statement, commit, .. } = read(code, Severity::Fatal);
            assert_eq!((statement, commit), (Unknown, Unknown), "{code}");
        }
        for code in ["08004", "28P01", "3D000", "53300", "57P03", "57P05"] {
            let SqlState { statement, commit, .. } = read(code, Severity::Fatal);
            assert_eq!((statement, commit), (RolledBack, Unknown), "{code}");
        }
        let idle = read("25P03", Severity::Fatal);
        assert_eq!((idle.statement, idle.commit), (RolledBack, RolledBack));
    }

    #[test]
    fn each_row_of_the_table_is_tested_and_listed_once() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|other| other.0 != row.0), "{} stands twice", row.0);
            let longer = |code: &str| {
                TABLE.iter().any(|other| code.starts_with(other.0) && other.0.len() > row.0.len())
            };
            let decides = |code: &str| code.starts_with(row.0) && !longer(code);
            assert!(
                JUDGED.iter().any(|judged| decides(judged.0)),
                "no code of the test is decided by {}",
                row.0
            );
        }
    }
}
