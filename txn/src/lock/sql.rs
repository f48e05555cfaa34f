//! The text of a locking statement. Pure.

use std::fmt::Write as _;

use super::witness::Lockable;
use crate::backend::lock_syntax::LockSyntax;

/// The names of `R`, checked when the code that locks is compiled.
pub(super) struct Names<R>(std::marker::PhantomData<R>);

impl<R: Lockable> Names<R> {
    pub(super) const LEGAL: () = assert!(
        parts(R::TABLE) > 0 && parts(R::KEY) == 1,
        "Lockable::TABLE must be an SQL name, perhaps with its schema, and Lockable::KEY that of a column: \
         letters, digits and `_`, or anything between double quotes (a quote in it is doubled)"
    );
}

/// Counts the names, with dots between them; zero if one of them is no name.
const fn parts(name: &str) -> usize {
    let bytes = name.as_bytes();
    let (mut at, mut parts) = (0, 0);
    loop {
        let end = part(bytes, at);
        if end == 0 {
            return 0;
        }
        parts += 1;
        if end == bytes.len() {
            return parts;
        }
        if bytes[end] != b'.' {
            return 0;
        }
        at = end + 1;
    }
}

/// The end of the name that begins at `at`, or zero.
const fn part(bytes: &[u8], at: usize) -> usize {
    let mut end = at;
    if at < bytes.len() && bytes[at] == b'"' {
        end += 1;
        while end < bytes.len() && bytes[end] != 0 {
            if bytes[end] == b'"' {
                // A doubled quote is one that belongs to the name.
                if end + 1 == bytes.len() || bytes[end + 1] != b'"' {
                    break;
                }
                end += 1;
            }
            end += 1;
        }
        let closed = end < bytes.len() && bytes[end] == b'"' && end > at + 1;
        return if closed { end + 1 } else { 0 };
    }
    while end < bytes.len() && (bytes[end].is_ascii_alphanumeric() || bytes[end] == b'_') {
        end += 1;
    }
    if end > at && !bytes[at].is_ascii_digit() { end } else { 0 }
}

/// The form in which the keys are given to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// The keys are one array: one text for any number of keys.
    Array(&'static LockSyntax),
    /// This number of parameters, one for each key.
    Each(usize),
}

/// Selects the keys of the rows that are asked for, in one order for all callers: the rows are sorted before they are
/// locked, for any order of an index or a scan.
///
/// The alias makes every key name a column: SQLite reads an unknown quoted name as a string. `suffix` locks the rows.
pub(super) fn select<R: Lockable>(keys: Keys, suffix: &str) -> String {
    let (table, key) = (R::TABLE, R::KEY);
    let wanted = match keys {
        Keys::Array(syntax) => syntax.in_array.to_owned(),
        Keys::Each(count) => format!("IN ({})", places(count, "$", "")),
    };
    format!("SELECT this.{key} FROM {table} AS this WHERE this.{key} {wanted} ORDER BY this.{key}{suffix}")
}

/// Selects the keys of the rows once more, one row for each of the keys that the database finds equal to one.
pub(super) fn select_equal<R: Lockable>(keys: Keys, suffix: &str) -> String {
    let (table, key) = (R::TABLE, R::KEY);
    let wanted = match keys {
        Keys::Array(syntax) => syntax.array_as_table.to_owned(),
        Keys::Each(count) => format!("(VALUES {}) AS wanted", places(count, "($", ")")),
    };
    format!(
        "SELECT this.{key} FROM {wanted} JOIN {table} AS this ON this.{key} = wanted.column1 \
         ORDER BY this.{key}{suffix}"
    )
}

fn places(count: usize, before: &str, after: &str) -> String {
    let mut places = String::with_capacity(count * 8);
    for place in 1..=count {
        let comma = if places.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(places, "{comma}{before}{place}{after}");
    }
    places
}

#[cfg(all(test, any(feature = "postgres", feature = "sqlite")))]
mod tests {
    use super::*;

    struct Payment;

    impl Lockable for Payment {
        type Key = i64;
        const TABLE: &'static str = "bank.payments";
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn many_rows_are_locked_by_one_ordered_statement() {
        let syntax = <sqlx::Postgres as crate::backend::Driver>::LOCKS.expect("PostgreSQL locks rows");
        assert_eq!(
            select::<Payment>(Keys::Each(3), syntax.until_free),
            "SELECT this.id FROM bank.payments AS this WHERE this.id IN ($1, $2, $3) ORDER BY this.id FOR NO KEY UPDATE"
        );
        assert!(select::<Payment>(Keys::Each(1), "").ends_with("ORDER BY this.id"));
        assert!(
            select_equal::<Payment>(Keys::Each(2), syntax.skip_in_join)
                .contains("(VALUES ($1), ($2)) AS wanted")
        );
        assert_eq!(
            select::<Payment>(Keys::Array(syntax), syntax.skip),
            "SELECT this.id FROM bank.payments AS this WHERE this.id = ANY($1) ORDER BY this.id \
             FOR NO KEY UPDATE SKIP LOCKED"
        );
        assert!(
            select_equal::<Payment>(Keys::Array(syntax), "")
                .contains("FROM unnest($1) AS wanted (column1) JOIN")
        );
    }

    #[test]
    fn only_identifiers_are_accepted_as_names() {
        for (name, count) in [
            ("payments", 1),
            ("bank.payments_2", 2),
            ("\"Order\"", 1),
            ("bank.\"a b; --\"", 2),
            ("\"a.b\".c", 2),
            ("\"a\"\"b\"", 1),
            ("\"\"\"\".\"\"\"\"", 2),
            ("", 0),
            ("2nd", 0),
            ("a b", 0),
            ("a;--", 0),
            ("a.", 0),
            (".a", 0),
            ("a..b", 0),
            ("\"\"", 0),
            ("\"\"\"", 0),
            ("\"\".a", 0),
            ("\"a\"\"", 0),
            ("\"a", 0),
            ("\"a\"b", 0),
            ("\"a\0\"", 0),
        ] {
            assert_eq!(parts(name), count, "{name}");
        }
    }
}
