//! The text of a locking statement. Pure.

use super::Lockable;

/// What to do where another transaction holds the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Wait, up to the lock timeout.
    UntilFree,
    /// Fail at once.
    Never,
    /// Leave the row out.
    Skip,
}

/// The names of `R`, checked when the code that locks is compiled.
pub(super) struct Names<R>(std::marker::PhantomData<R>);

impl<R: Lockable> Names<R> {
    pub(super) const LEGAL: () = assert!(
        is_name(R::TABLE) && is_name(R::KEY),
        "Lockable::TABLE and Lockable::KEY must be SQL names: letters, digits, `_` and `.`"
    );
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let legal = bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' || bytes[at] == b'.';
        if !legal {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty() && !bytes[0].is_ascii_digit()
}

/// Selects the keys of the rows, `count` of them asked for, in one order for everybody.
///
/// NO KEY UPDATE is as strong as an UPDATE of ordinary columns and lets others insert children that
/// refer to the row; FOR UPDATE would deadlock with them.
pub(super) fn select<R: Lockable>(count: usize, lock: Option<Wait>) -> String {
    let (table, key) = (R::TABLE, R::KEY);
    let places: Vec<_> = (1..=count).map(|place| format!("${place}")).collect();
    let suffix = match lock {
        None => "",
        Some(Wait::UntilFree) => " FOR NO KEY UPDATE",
        Some(Wait::Never) => " FOR NO KEY UPDATE NOWAIT",
        Some(Wait::Skip) => " FOR NO KEY UPDATE SKIP LOCKED",
    };
    format!("SELECT {key} FROM {table} WHERE {key} IN ({}) ORDER BY {key}{suffix}", places.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Payment;

    impl Lockable for Payment {
        type Key = i64;
        const TABLE: &'static str = "bank.payments";
    }

    #[test]
    fn many_rows_are_locked_by_one_ordered_statement() {
        assert_eq!(
            select::<Payment>(3, Some(Wait::UntilFree)),
            "SELECT id FROM bank.payments WHERE id IN ($1, $2, $3) ORDER BY id FOR NO KEY UPDATE"
        );
        assert!(select::<Payment>(1, None).ends_with("ORDER BY id"));
    }

    #[test]
    fn only_plain_names_are_names() {
        assert!(is_name("payments") && is_name("bank.payments_2"));
        assert!(!is_name("") && !is_name("2nd") && !is_name("a b") && !is_name("a;--"));
    }
}
