//! Reads the effects of a statement on a connection to SQLite: those that its next borrower would meet.

use crate::backend::dialect::{Effects, Piece, ReadEffects};
use crate::backend::words::{Words, is_among};

const TEMPORARY: &str = "a temporary object stays with the connection; use WITH, or a table of your own";
const CONNECTION: &str = "this stays with the connection; do it where the connection is made";

/// The statement that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteEffects<'s> {
    words: Words<'s>,
    effects: Effects,
}

impl<'s> ReadEffects<'s> for SqliteEffects<'s> {
    fn add(&mut self, piece: Piece<'s>) {
        match piece {
            Piece::Word(word) => self.add_word(word),
            Piece::Open | Piece::Equals => self.open_pragma(),
            Piece::Close | Piece::Comma | Piece::Semicolon => {}
        }
    }

    fn end(self) -> Effects {
        self.effects
    }
}

impl<'s> SqliteEffects<'s> {
    fn leave(&mut self, remedy: &'static str) {
        self.effects.leaves.get_or_insert(remedy);
    }

    fn add_word(&mut self, word: &'s str) {
        let words = self.words.add(word);
        if words.count == 1 && is_among(word, &["ATTACH", "DETACH"]) {
            self.leave(CONNECTION);
        }
        if words.count == 2 && words.begin_with("CREATE") && is_among(word, &["TEMP", "TEMPORARY"]) {
            self.leave(TEMPORARY);
        }
    }

    /// Takes the value of a pragma in. Pragmas that ask, and those about the file or the transaction, pass.
    fn open_pragma(&mut self) {
        const OF_THE_CONNECTION: [&str; 16] = [
            "automatic_index",
            "busy_timeout",
            "cache_size",
            "case_sensitive_like",
            "cell_size_check",
            "checkpoint_fullfsync",
            "foreign_keys",
            "fullfsync",
            "ignore_check_constraints",
            "journal_mode",
            "locking_mode",
            "query_only",
            "read_uncommitted",
            "recursive_triggers",
            "synchronous",
            "trusted_schema",
        ];
        if self.words.begin_with("PRAGMA") && OF_THE_CONNECTION.iter().any(|name| self.words.end_with(name)) {
            self.leave(CONNECTION);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::SqliteDialect;
    use super::*;
    use crate::tx::statement::read_effects;

    fn effects(sql: &str) -> Effects {
        read_effects::<SqliteDialect>(sql)
    }

    #[test]
    fn statements_that_stay_with_a_connection_are_recognised_on_sqlite() {
        for (sql, left) in [
            ("CREATE TEMP TABLE t (a)", Some(TEMPORARY)),
            ("CREATE TEMPORARY VIEW v AS SELECT 1", Some(TEMPORARY)),
            ("ATTACH 'other.db' AS other", Some(CONNECTION)),
            ("PRAGMA foreign_keys = OFF", Some(CONNECTION)),
            ("PRAGMA main.synchronous(0)", Some(CONNECTION)),
            ("PRAGMA synchronous", None),
            ("PRAGMA defer_foreign_keys = ON", None),
            ("PRAGMA user_version = 5", None),
            ("PRAGMA table_info(synchronous)", None),
            ("CREATE TABLE temp (a)", None),
        ] {
            assert_eq!(effects(sql).leaves, left, "{sql}");
        }
    }
}
