//! The classes of SQLite's result codes.
//!
//! Invariant: no I/O, no clock. A new code is a new row.

use crate::classify::Class;

/// A primary code stands for its whole family unless an extended code has a row.
const TABLE: &[(u32, Class)] = &[
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

/// The primary codes after which nothing of the transaction can become durable: ERROR, PERM, ABORT, BUSY, LOCKED, READONLY,
/// INTERRUPT, FULL, SCHEMA, TOOBIG, CONSTRAINT, MISMATCH, MISUSE, AUTH, RANGE.
const NOT_COMMITTED: [u32; 15] = [1, 3, 4, 5, 6, 8, 9, 13, 17, 18, 19, 20, 21, 23, 25];

/// Tells whether this answer to COMMIT leaves the outcome open. An I/O error or a lack of memory can come after the commit
/// reached the file, where the next process finds it.
pub(super) fn leaves_commit_open(code: &str) -> bool {
    !code.parse::<u32>().is_ok_and(|code| NOT_COMMITTED.contains(&(code & 0xff)))
}

/// Reads a result code, extended or primary: the extended row wins.
pub(super) fn classify_code(code: &str) -> Class {
    let Ok(code) = code.parse::<u32>() else {
        return Class::Other;
    };
    let find = |wanted: u32| TABLE.iter().find(|&&(code, _)| code == wanted).map(|&(_, class)| class);
    // The primary code is the low byte of an extended one.
    find(code).or_else(|| find(code & 0xff)).unwrap_or(Class::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_sqlite_code_falls_back_to_its_family() {
        for (code, class) in [
            ("5", Class::Busy),
            ("261", Class::Busy),
            ("517", Class::Busy),
            ("262", Class::Busy),
            ("2067", Class::Constraint),
            ("1299", Class::Constraint),
            ("778", Class::Storage),
            ("13", Class::Overloaded),
            ("1", Class::Other),
            ("not a number", Class::Other),
        ] {
            assert_eq!(classify_code(code), class, "{code}");
        }
    }

    #[test]
    fn only_codes_that_are_known_to_undo_a_commit_are_refusals() {
        // proves: T-2
        // With extended codes: BUSY_SNAPSHOT, CONSTRAINT_FOREIGNKEY.
        for code in ["1", "5", "517", "6", "13", "19", "787"] {
            assert!(!leaves_commit_open(code), "{code}");
        }
        // NOMEM, IOERR, IOERR_FSYNC, CORRUPT, CANTOPEN, PROTOCOL, NOTADB, and none.
        for code in ["7", "10", "1034", "11", "14", "15", "26", "0", "", "not a number"] {
            assert!(leaves_commit_open(code), "{code}");
        }
    }

    #[test]
    fn no_code_stands_twice_in_the_table() {
        for (index, (code, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|(other, _)| other != code), "{code}");
        }
    }
}
