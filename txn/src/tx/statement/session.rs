//! Reads what SQL text would leave to the session behind its transaction: to the next borrower of the connection.
//!
//! As in `control.rs` this is a guard against accidents. What functions, triggers and code in strings do is not seen;
//! code that a statement brings along (`DO`, `CALL`) is taken for something that may have done anything.

use super::scan::{Dialect, Piece};

/// A change of the session that would outlive a committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// A setting, a role, a session authorization; or their reset.
    Setting,
    /// A channel that is listened to, or no more.
    Channel,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// A temporary table or another temporary object.
    Temporary,
    /// A statement prepared by name, or all of them forgotten.
    Prepared,
    /// A cursor that survives its transaction.
    Cursor,
    /// A library, an attached database or a pragma of the connection.
    Connection,
}

/// The statement that is being read.
#[derive(Clone, Debug)]
pub(super) struct Trail<'s> {
    dialect: Dialect,
    /// The words that stand at its start, as far as they decide what it is.
    first: &'s str,
    words: u32,
    last: &'s str,
    /// An INTO of a SELECT was read, and not yet the name of the table that it creates.
    selects_into: bool,
    /// The last piece was a word.
    after_word: bool,
    /// The words of a CREATE so far only say what kind of thing it creates.
    describing: bool,
    /// It creates a temporary table, and did not say that COMMIT drops it.
    temporary: bool,
    depth: u32,
    call: Option<SetConfig<'s>>,
    /// The first thing that it would leave.
    pub(super) leaves: Option<Leftover>,
    /// It may change the role up to the end of the transaction.
    pub(super) role: bool,
    /// It may do things that the text does not show.
    pub(super) opaque: bool,
}

/// A call of `set_config(name, value, is_local)`.
#[derive(Clone, Copy, Debug)]
struct SetConfig<'s> {
    depth: u32,
    commas: u32,
    /// The third argument, if it is one word.
    local: Option<&'s str>,
    words: u32,
}

impl<'s> Trail<'s> {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            first: "",
            words: 0,
            last: "",
            selects_into: false,
            after_word: false,
            describing: false,
            temporary: false,
            depth: 0,
            call: None,
            leaves: None,
            role: false,
            opaque: false,
        }
    }

    /// Takes the next piece in.
    pub(super) fn add(&mut self, piece: Piece<'s>) {
        match piece {
            Piece::Word(word) => {
                self.words += 1;
                if self.words == 1 {
                    self.first = word;
                }
                match self.dialect {
                    Dialect::Postgres => self.word_of_postgres(word),
                    Dialect::Sqlite => self.word_of_sqlite(word),
                }
                self.last = word;
            }
            Piece::Open => {
                self.depth += 1;
                self.open();
            }
            Piece::Close => {
                self.close();
                self.depth = self.depth.saturating_sub(1);
            }
            Piece::Comma => {
                if let Some(call) = self.call.as_mut().filter(|call| call.depth == self.depth) {
                    call.commas += 1;
                }
            }
            Piece::Equals => self.open_pragma(),
            Piece::Semicolon => {}
        }
        self.after_word = matches!(piece, Piece::Word(_));
    }

    /// The statement is over.
    pub(super) fn end(&mut self) {
        if self.temporary {
            self.leave(Leftover::Temporary);
        }
    }

    fn leave(&mut self, what: Leftover) {
        self.leaves.get_or_insert(what);
    }

    fn begins(&self, word: &str) -> bool {
        self.first.eq_ignore_ascii_case(word)
    }

    fn follows(&self, word: &str) -> bool {
        self.last.eq_ignore_ascii_case(word)
    }

    fn word_of_postgres(&mut self, word: &'s str) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        let among = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if let Some(call) = &mut self.call
            && call.commas == 2
        {
            call.words += 1;
            call.local = Some(word);
        }
        if self.words == 1 {
            if among(&["RESET", "DISCARD"]) {
                self.leave(Leftover::Setting);
            } else if among(&["LISTEN", "UNLISTEN"]) {
                self.leave(Leftover::Channel);
            } else if is("DEALLOCATE") {
                self.leave(Leftover::Prepared);
            } else if is("LOAD") {
                self.leave(Leftover::Connection);
            }
            self.opaque |= among(&["DO", "CALL", "EXECUTE"]);
            self.describing = is("CREATE");
            return;
        }
        if self.begins("SET") {
            if self.words == 2 && !among(&["LOCAL", "CONSTRAINTS", "TRANSACTION"]) {
                self.leave(Leftover::Setting);
            }
            self.role |= self.words == 3 && among(&["ROLE", "SESSION"]);
        } else if self.begins("PREPARE") {
            if self.words == 2 && !is("TRANSACTION") {
                self.leave(Leftover::Prepared);
            }
        } else if self.begins("DECLARE") {
            if is("HOLD") && self.follows("WITH") {
                self.leave(Leftover::Cursor);
            }
        } else if self.begins("SELECT") || self.begins("WITH") {
            if self.selects_into && among(&["TEMP", "TEMPORARY", "PG_TEMP"]) {
                self.leave(Leftover::Temporary);
            }
            let written_to = self.follows("INSERT") || self.follows("MERGE");
            self.selects_into =
                (is("INTO") && !written_to) || (self.selects_into && among(&["LOCAL", "GLOBAL"]));
        } else if self.begins("CREATE") {
            self.created(word);
        }
    }

    fn created(&mut self, word: &str) {
        let among = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if among(&["TEMP", "TEMPORARY"]) && self.describing {
            self.temporary = true;
        } else if self.describing && !among(&["OR", "REPLACE", "LOCAL", "GLOBAL", "UNLOGGED", "RECURSIVE"]) {
            self.describing = false;
            // Of what is temporary only a table can be dropped by COMMIT.
            if self.temporary && !among(&["TABLE"]) {
                self.leave(Leftover::Temporary);
            }
        } else if among(&["PG_TEMP"]) {
            self.temporary = true;
        } else if among(&["DROP"]) && self.follows("COMMIT") {
            self.temporary = false;
        }
    }

    fn word_of_sqlite(&mut self, word: &'s str) {
        let among = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
        if self.words == 1 && among(&["ATTACH", "DETACH"]) {
            self.leave(Leftover::Connection);
        }
        if self.words == 2 && self.begins("CREATE") && among(&["TEMP", "TEMPORARY"]) {
            self.leave(Leftover::Temporary);
        }
    }

    /// An opening parenthesis: that of a call, if a word stands before it.
    fn open(&mut self) {
        const LOCKS: [&str; 4] = [
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ];
        if self.dialect == Dialect::Sqlite {
            return self.open_pragma();
        }
        if !self.after_word {
            return;
        }
        if LOCKS.iter().any(|lock| self.follows(lock)) {
            self.leave(Leftover::AdvisoryLock);
        }
        if self.follows("set_config") && self.call.is_none() {
            self.call = Some(SetConfig { depth: self.depth, commas: 0, local: None, words: 0 });
        }
    }

    fn close(&mut self) {
        let Some(call) = self.call.take_if(|call| call.depth == self.depth) else { return };
        self.role = true;
        match call.local.filter(|_| call.words == 1) {
            Some(word) if word.eq_ignore_ascii_case("true") => {}
            Some(word) if word.eq_ignore_ascii_case("false") => self.leave(Leftover::Setting),
            _ => self.opaque = true,
        }
    }

    /// A pragma with a value, not with a question: those that are about the file or the transaction pass.
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
        if self.dialect == Dialect::Sqlite
            && self.begins("PRAGMA")
            && OF_THE_CONNECTION.iter().any(|name| self.follows(name))
        {
            self.leave(Leftover::Connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::Pieces;
    use super::*;

    fn trail(sql: &str, dialect: Dialect) -> Trail<'_> {
        let mut trail = Trail::new(dialect);
        Pieces::of(sql, dialect).for_each(|piece| trail.add(piece));
        trail.end();
        trail
    }

    #[test]
    fn what_outlives_its_transaction_is_recognised_on_postgres() {
        use Leftover::{AdvisoryLock, Channel, Connection, Cursor, Prepared, Setting, Temporary};
        for (sql, left) in [
            ("SET search_path = other", Setting),
            ("set session search_path TO other", Setting),
            ("SET \"app.tenant\" TO '7'", Setting),
            ("SET ROLE clerk", Setting),
            ("SET SESSION AUTHORIZATION clerk", Setting),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Setting),
            ("RESET ALL", Setting),
            ("DISCARD TEMP", Setting),
            ("SELECT set_config('app.tenant', $1, false)", Setting),
            ("SELECT pg_catalog.set_config('a.b', upper(concat('x', 'y')), FALSE), 1", Setting),
            ("LISTEN payments", Channel),
            ("UNLISTEN *", Channel),
            ("SELECT pg_advisory_lock(7)", AdvisoryLock),
            ("SELECT 1 WHERE pg_try_advisory_lock_shared (7, 8)", AdvisoryLock),
            ("CREATE TEMP TABLE t (a int)", Temporary),
            ("CREATE LOCAL TEMPORARY TABLE t ON COMMIT DELETE ROWS AS SELECT 1", Temporary),
            ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", Temporary),
            ("CREATE TEMP SEQUENCE s", Temporary),
            ("CREATE TABLE pg_temp.t (a int)", Temporary),
            ("SELECT 1 AS a INTO TEMP t", Temporary),
            ("SELECT 1 AS a INTO LOCAL TEMPORARY TABLE t", Temporary),
            ("select 1 as a into pg_temp.t from payments", Temporary),
            ("WITH p AS (SELECT 1 AS a) SELECT a INTO TEMP t FROM p", Temporary),
            ("WITH p AS (INSERT INTO q SELECT 1 RETURNING a) SELECT a INTO pg_temp.t FROM p", Temporary),
            ("PREPARE p AS SELECT 1", Prepared),
            ("DEALLOCATE ALL", Prepared),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Cursor),
            ("LOAD 'auto_explain'", Connection),
        ] {
            assert_eq!(trail(sql, Dialect::Postgres).leaves, Some(left), "{sql}");
        }
    }

    #[test]
    fn what_ends_with_its_transaction_passes_on_postgres() {
        for sql in [
            "SET LOCAL search_path = other",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET TRANSACTION READ ONLY",
            "SELECT set_config('app.tenant', $1, true)",
            "SELECT pg_advisory_xact_lock(7), pg_try_advisory_xact_lock(8)",
            "SELECT pg_advisory_lock FROM locks",
            "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
            "CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT 1",
            "CREATE TABLE temp (a int)",
            "INSERT INTO temp SELECT 1",
            "INSERT INTO pg_temp.t SELECT 1",
            "WITH p AS (INSERT INTO temp SELECT 1 RETURNING a) SELECT a, temp FROM p",
            "WITH p AS (SELECT 1 AS a) MERGE INTO temp USING p ON temp.a = p.a WHEN MATCHED THEN DELETE",
            "SELECT local temp FROM payments",
            "UPDATE payments SET role = 'x', listen = 'y'",
            "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
            "NOTIFY payments",
            "SELECT 'SET ROLE clerk; LISTEN a'",
        ] {
            let trail = trail(sql, Dialect::Postgres);
            assert_eq!(trail.leaves, None, "{sql}");
            assert!(!trail.opaque, "{sql}");
        }
    }

    #[test]
    fn what_the_text_does_not_show_is_known_to_be_unknown() {
        for sql in [
            "DO $$ BEGIN SET ROLE clerk; END $$",
            "CALL settle()",
            "SELECT set_config('a.b', 'c', $1)",
            "SELECT set_config('a.b', 'c', 1 = 1)",
        ] {
            assert!(trail(sql, Dialect::Postgres).opaque, "{sql}");
        }
        for (sql, role) in [
            ("SET LOCAL ROLE clerk", true),
            ("SET LOCAL SESSION AUTHORIZATION clerk", true),
            ("SELECT set_config($1, $2, true)", true),
            ("SET LOCAL search_path = a", false),
            ("SELECT role FROM users", false),
        ] {
            assert_eq!(trail(sql, Dialect::Postgres).role, role, "{sql}");
        }
    }

    #[test]
    fn what_stays_with_a_connection_is_recognised_on_sqlite() {
        for (sql, left) in [
            ("CREATE TEMP TABLE t (a)", Some(Leftover::Temporary)),
            ("CREATE TEMPORARY VIEW v AS SELECT 1", Some(Leftover::Temporary)),
            ("ATTACH 'other.db' AS other", Some(Leftover::Connection)),
            ("PRAGMA foreign_keys = OFF", Some(Leftover::Connection)),
            ("PRAGMA main.synchronous(0)", Some(Leftover::Connection)),
            ("PRAGMA synchronous", None),
            ("PRAGMA defer_foreign_keys = ON", None),
            ("PRAGMA user_version = 5", None),
            ("PRAGMA table_info(synchronous)", None),
            ("CREATE TABLE temp (a)", None),
        ] {
            assert_eq!(trail(sql, Dialect::Sqlite).leaves, left, "{sql}");
        }
    }
}
