//! The codes, as data.

use super::Class;

/// PostgreSQL: five characters name one condition, fewer a whole class.
pub(super) const SQLSTATES: &[(&str, Class)] = &[
    ("40001", Class::Serialization),
    ("40P01", Class::Deadlock),
    ("55P03", Class::LockTimeout),
    ("08", Class::ConnectionLost),
    ("57P01", Class::ConnectionLost), // admin_shutdown
    ("57P02", Class::ConnectionLost), // crash_shutdown
    ("57P03", Class::ConnectionLost), // cannot_connect_now
    ("57P05", Class::ConnectionLost), // idle_session_timeout
    ("25P03", Class::SessionTimeout), // idle_in_transaction_session_timeout
    ("25P04", Class::SessionTimeout), // transaction_timeout
    ("25006", Class::ReadOnly),       // read_only_sql_transaction
    ("57014", Class::Timeout),
    ("23", Class::Constraint),
    ("25P02", Class::Aborted),
    ("53", Class::Overloaded),
    ("58", Class::Storage),
    ("XX001", Class::Storage), // data_corrupted
    ("XX002", Class::Storage), // index_corrupted
    ("0A000", Class::StalePlan),
];

/// SQLite: a primary code stands for its whole family unless an extended code has a row.
pub(super) const SQLITE_CODES: &[(u32, Class)] = &[
    (5, Class::Busy),
    (6, Class::Busy),
    (517, Class::Busy), // BUSY_SNAPSHOT: only a new transaction sees the present
    (19, Class::Constraint),
    (9, Class::Timeout), // INTERRUPT
    (7, Class::Overloaded),
    (13, Class::Overloaded), // FULL
    (10, Class::Storage),
    (11, Class::Storage),
    (26, Class::Storage),
];
