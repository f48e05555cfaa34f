//! Reads the effects of a statement on a session of PostgreSQL: those that the next borrower of the connection
//! would meet.
//!
//! Code that a statement brings along (`DO`, `CALL`) is taken for something that may have done anything.

use crate::backend::dialect::{Effects, Piece, ReadEffects};
use crate::backend::words::{Words, is_among};

const SETTING: &str = "the setting would outlive the transaction, and the next borrower of the connection would have it; use \
    SET LOCAL, set_config(.., true) or Txn::set_local, or set it in the options of the connection";
const CHANNEL: &str = "listening outlives the transaction; use a connection of its own (sqlx's PgListener)";
const ADVISORY_LOCK: &str =
    "the lock would outlive the transaction; use Tx::advisory or pg_advisory_xact_lock";
const TEMPORARY: &str =
    "a temporary object stays with the connection; use CREATE TEMP TABLE .. ON COMMIT DROP, or WITH";
const PREPARED: &str = "prepared statements stay with the connection, and sqlx keeps its own there";
const CURSOR: &str = "a cursor WITH HOLD outlives the transaction; leave WITH HOLD out";
const CONNECTION: &str = "this stays with the connection; do it where the connection is made";

/// The statement that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresEffects<'s> {
    words: Words<'s>,
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
    effects: Effects,
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

impl<'s> ReadEffects<'s> for PostgresEffects<'s> {
    fn add(&mut self, piece: Piece<'s>) {
        match piece {
            Piece::Word(word) => self.add_word(word),
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
            Piece::Equals | Piece::Semicolon => {}
        }
        self.after_word = matches!(piece, Piece::Word(_));
    }

    fn end(mut self) -> Effects {
        if self.temporary {
            self.leave(TEMPORARY);
        }
        self.effects
    }
}

impl<'s> PostgresEffects<'s> {
    fn leave(&mut self, remedy: &'static str) {
        self.effects.leaves.get_or_insert(remedy);
    }

    /// Takes the next word in.
    fn add_word(&mut self, word: &'s str) {
        let words = self.words.add(word);
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        let among = |words: &[&str]| is_among(word, words);
        if let Some(call) = &mut self.call
            && call.commas == 2
        {
            call.words += 1;
            call.local = Some(word);
        }
        if words.count == 1 {
            if among(&["RESET", "DISCARD"]) {
                self.leave(SETTING);
            } else if among(&["LISTEN", "UNLISTEN"]) {
                self.leave(CHANNEL);
            } else if is("DEALLOCATE") {
                self.leave(PREPARED);
            } else if is("LOAD") {
                self.leave(CONNECTION);
            }
            self.effects.opaque |= among(&["DO", "CALL", "EXECUTE"]);
            self.describing = is("CREATE");
            return;
        }
        if words.begin_with("SET") {
            if words.count == 2 && !among(&["LOCAL", "CONSTRAINTS", "TRANSACTION"]) {
                self.leave(SETTING);
            }
            self.effects.role |= words.count == 3 && among(&["ROLE", "SESSION"]);
        } else if words.begin_with("PREPARE") {
            if words.count == 2 && !is("TRANSACTION") {
                self.leave(PREPARED);
            }
        } else if words.begin_with("DECLARE") {
            if is("HOLD") && words.end_with("WITH") {
                self.leave(CURSOR);
            }
        } else if words.begin_with("SELECT") || words.begin_with("WITH") {
            if self.selects_into && among(&["TEMP", "TEMPORARY", "PG_TEMP"]) {
                self.leave(TEMPORARY);
            }
            let written_to = words.end_with("INSERT") || words.end_with("MERGE");
            self.selects_into = (is("INTO") && !written_to)
                || (self.selects_into && among(&["LOCAL", "GLOBAL", "UNLOGGED", "TABLE"]));
        } else if words.begin_with("CREATE") {
            self.add_created(words, word);
        }
    }

    /// Takes the next word of a CREATE in.
    fn add_created(&mut self, words: Words<'s>, word: &str) {
        let among = |words: &[&str]| is_among(word, words);
        if among(&["TEMP", "TEMPORARY"]) && self.describing {
            self.temporary = true;
        } else if self.describing && !among(&["OR", "REPLACE", "LOCAL", "GLOBAL", "UNLOGGED", "RECURSIVE"]) {
            self.describing = false;
            // COMMIT can drop temporary tables, and no other temporary object.
            if self.temporary && !among(&["TABLE"]) {
                self.leave(TEMPORARY);
            }
        } else if among(&["PG_TEMP"]) {
            self.temporary = true;
        } else if among(&["DROP"]) && words.end_with("COMMIT") {
            self.temporary = false;
        }
    }

    /// Takes an opening parenthesis in: that of a call, if a word stands before it.
    fn open(&mut self) {
        const LOCKS: [&str; 4] = [
            "pg_advisory_lock",
            "pg_advisory_lock_shared",
            "pg_try_advisory_lock",
            "pg_try_advisory_lock_shared",
        ];
        if !self.after_word {
            return;
        }
        if LOCKS.iter().any(|lock| self.words.end_with(lock)) {
            self.leave(ADVISORY_LOCK);
        }
        if self.words.end_with("set_config") && self.call.is_none() {
            self.call = Some(SetConfig { depth: self.depth, commas: 0, local: None, words: 0 });
        }
    }

    /// Takes a closing parenthesis in.
    fn close(&mut self) {
        let Some(call) = self.call.take_if(|call| call.depth == self.depth) else { return };
        self.effects.role = true;
        match call.local.filter(|_| call.words == 1) {
            Some(word) if word.eq_ignore_ascii_case("true") => {}
            Some(word) if word.eq_ignore_ascii_case("false") => self.leave(SETTING),
            _ => self.effects.opaque = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::PostgresDialect;
    use super::*;
    use crate::tx::statement::read_effects;

    fn effects(sql: &str) -> Effects {
        read_effects::<PostgresDialect>(sql)
    }

    #[test]
    fn statements_that_outlive_their_transaction_are_recognised_on_postgres() {
        for (sql, left) in [
            ("SET search_path = other", SETTING),
            ("set session search_path TO other", SETTING),
            ("SET \"app.tenant\" TO '7'", SETTING),
            ("SET ROLE clerk", SETTING),
            ("SET SESSION AUTHORIZATION clerk", SETTING),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", SETTING),
            ("RESET ALL", SETTING),
            ("DISCARD TEMP", SETTING),
            ("SELECT set_config('app.tenant', $1, false)", SETTING),
            ("SELECT pg_catalog.set_config('a.b', upper(concat('x', 'y')), FALSE), 1", SETTING),
            ("LISTEN payments", CHANNEL),
            ("UNLISTEN *", CHANNEL),
            ("SELECT pg_advisory_lock(7)", ADVISORY_LOCK),
            ("SELECT 1 WHERE pg_try_advisory_lock_shared (7, 8)", ADVISORY_LOCK),
            ("CREATE TEMP TABLE t (a int)", TEMPORARY),
            ("CREATE LOCAL TEMPORARY TABLE t ON COMMIT DELETE ROWS AS SELECT 1", TEMPORARY),
            ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", TEMPORARY),
            ("CREATE TEMP SEQUENCE s", TEMPORARY),
            ("CREATE TABLE pg_temp.t (a int)", TEMPORARY),
            ("SELECT 1 AS a INTO TEMP t", TEMPORARY),
            ("SELECT 1 AS a INTO LOCAL TEMPORARY TABLE t", TEMPORARY),
            ("select 1 as a into pg_temp.t from payments", TEMPORARY),
            ("SELECT 1 AS a INTO TABLE pg_temp.t", TEMPORARY),
            ("SELECT 1 AS a INTO UNLOGGED TABLE pg_temp.t", TEMPORARY),
            ("WITH p AS (SELECT 1 AS a) SELECT a INTO TEMP t FROM p", TEMPORARY),
            ("WITH p AS (INSERT INTO q SELECT 1 RETURNING a) SELECT a INTO pg_temp.t FROM p", TEMPORARY),
            ("PREPARE p AS SELECT 1", PREPARED),
            ("DEALLOCATE ALL", PREPARED),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", CURSOR),
            ("LOAD 'auto_explain'", CONNECTION),
        ] {
            assert_eq!(effects(sql).leaves, Some(left), "{sql}");
        }
    }

    #[test]
    fn statements_that_end_with_their_transaction_pass_on_postgres() {
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
            let effects = effects(sql);
            assert_eq!(effects.leaves, None, "{sql}");
            assert!(!effects.opaque, "{sql}");
        }
    }

    #[test]
    fn statements_that_hide_their_effect_are_opaque() {
        for sql in [
            "DO $$ BEGIN SET ROLE clerk; END $$",
            "CALL settle()",
            "SELECT set_config('a.b', 'c', $1)",
            "SELECT set_config('a.b', 'c', 1 = 1)",
        ] {
            assert!(effects(sql).opaque, "{sql}");
        }
        for (sql, role) in [
            ("SET LOCAL ROLE clerk", true),
            ("SET LOCAL SESSION AUTHORIZATION clerk", true),
            ("SELECT set_config($1, $2, true)", true),
            ("SET LOCAL search_path = a", false),
            ("SELECT role FROM users", false),
        ] {
            assert_eq!(effects(sql).role, role, "{sql}");
        }
    }
}
