//! The codes, as data.

use super::Class;

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
