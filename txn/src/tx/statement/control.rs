//! Reads what SQL text does to the transaction: whether it begins, ends or nests it, whether it is more than one
//! statement, and what it would leave behind.
//!
//! A guard against accidents, not against malice: it looks at the first words of each statement.

use std::mem;

use super::scan::Pieces;
use crate::backend::dialect::{Dialect, Effects, Piece, ReadEffects as _};

/// The effect of a text on the transaction around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// It begins or ends the transaction.
    Transaction,
    /// It nests the transaction.
    Savepoint,
}

/// The reading of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// The first statement that controls the transaction.
    pub(super) control: Option<Control>,
    /// Something stands behind the first semicolon. The body of a trigger counts.
    pub(super) several: bool,
    /// The effects of all its statements.
    pub(super) effects: Effects,
}

/// Reads the whole text.
pub(super) fn read<D: Dialect>(sql: &str) -> Reading {
    let mut reading = Reading::default();
    let mut statement = Statement::default();
    let mut effects = <D::Effects<'_>>::default();
    let mut ended = false;
    for piece in Pieces::<D>::of(sql) {
        match piece {
            Piece::Word(word) => {
                reading.several |= ended;
                let control = statement.add::<D>(word);
                reading.control = reading.control.or(control);
            }
            Piece::Semicolon => {
                ended |= statement.words > 0;
                statement = Statement { in_body: statement.in_body, ..Statement::default() };
                if !statement.in_body {
                    reading.add(mem::take(&mut effects).end());
                }
                continue;
            }
            _ => {}
        }
        if !statement.in_body {
            effects.add(piece);
        }
    }
    reading.add(effects.end());
    reading
}

impl Reading {
    /// Takes the effects of a statement in.
    fn add(&mut self, effects: Effects) {
        self.effects.leaves = self.effects.leaves.or(effects.leaves);
        self.effects.role |= effects.role;
        self.effects.opaque |= effects.opaque;
    }
}

/// The statement that is being read.
#[derive(Default)]
struct Statement {
    words: u32,
    /// It begins with CREATE.
    creates: bool,
    /// It creates a trigger.
    triggers: bool,
    /// The last word was the PREPARE it begins with.
    prepares: bool,
    /// The last word began a body, or may be the first half of that.
    begins: bool,
    /// The word stands inside the unquoted body of a trigger or a function, whose statements end in semicolons too.
    /// Its END stands where a statement would.
    in_body: bool,
}

impl Statement {
    /// Takes the next word in; answers if it controls the transaction.
    fn add<D: Dialect>(&mut self, word: &str) -> Option<Control> {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        self.words += 1;
        let (first, prepares, begins) = (self.words == 1, self.prepares, self.begins);
        self.prepares = first && is("PREPARE");
        if self.in_body {
            // At the start of a statement, or right behind the BEGIN of an empty body.
            self.in_body = !((first || begins) && is("END"));
            self.begins = false;
            return None;
        }
        self.creates |= first && is("CREATE");
        self.triggers |= self.creates && is("TRIGGER");
        if self.creates {
            self.in_body = D::begins_body(self.triggers, begins, word);
            self.begins = is("BEGIN") || self.in_body;
            return None;
        }
        if first {
            return control(word);
        }
        // `PREPARE TRANSACTION` takes the transaction away from the connection; `PREPARE name AS` is only a statement.
        (prepares && is("TRANSACTION")).then_some(Control::Transaction)
    }
}

fn control(word: &str) -> Option<Control> {
    const TRANSACTION: [&str; 6] = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"];
    const SAVEPOINT: [&str; 2] = ["SAVEPOINT", "RELEASE"];
    let among = |words: &[&str]| words.iter().any(|known| word.eq_ignore_ascii_case(known));
    if among(&TRANSACTION) {
        Some(Control::Transaction)
    } else if among(&SAVEPOINT) {
        Some(Control::Savepoint)
    } else {
        None
    }
}

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::backend::Driver;

    type Read = fn(&str) -> Reading;
    const POSTGRES: (&str, Read) = ("PostgreSQL", read::<<sqlx::Postgres as Driver>::Dialect>);
    const SQLITE: (&str, Read) = ("SQLite", read::<<sqlx::Sqlite as Driver>::Dialect>);
    const BOTH: [(&str, Read); 2] = [POSTGRES, SQLITE];

    #[track_caller]
    fn check(sqls: &[&str], databases: &[(&str, Read)], expected: Option<Control>) {
        for (database, read) in databases {
            for sql in sqls {
                assert_eq!(read(sql).control, expected, "{database}: {sql}");
            }
        }
    }

    #[test]
    fn text_that_controls_the_transaction_is_recognised() {
        let everywhere = [
            "COMMIT",
            "  rollback to x",
            "/* quick */ -- fix\n end",
            "INSERT INTO t VALUES (1); COMMIT",
            "SELECT ';'; begin",
            "SELECT 1 /* ; */;;ROLLBACK",
            "PREPARE TRANSACTION 'later'",
            "(SELECT 1); COMMIT",
            "SELECT a$b$; COMMIT; SELECT a$b$",
        ];
        check(&everywhere, &BOTH, Some(Control::Transaction));
        let postgres = [
            "SELECT $$;$$;abort",
            r"SELECT E'it\'s'; COMMIT",
            r"SELECT date'it\'; COMMIT; SELECT '",
            "/* a /* b */ c */ COMMIT",
            "CREATE FUNCTION f() RETURNS int AS 'SELECT 1; END' LANGUAGE sql; COMMIT",
            "CREATE FUNCTION f() RETURNS int AS $$ BEGIN; END $$ LANGUAGE plpgsql; COMMIT",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; COMMIT",
            "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC END; COMMIT",
            "CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f(); COMMIT",
        ];
        check(&postgres, &[POSTGRES], Some(Control::Transaction));
        let sqlite = [
            "SELECT [it's]; COMMIT",
            "SELECT $a$; COMMIT; SELECT $a$",
            "/* a /* b */ COMMIT",
            "CREATE TABLE a (begin INT); COMMIT",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE WHEN 1 THEN 2 END; END; COMMIT",
            "\u{feff}COMMIT",
        ];
        check(&sqlite, &[SQLITE], Some(Control::Transaction));
        check(&["SAVEPOINT a", "SELECT 1; RELEASE a"], &BOTH, Some(Control::Savepoint));
    }

    #[test]
    fn text_that_only_mentions_the_words_passes() {
        let everywhere = [
            "",
            ";",
            "SELECT 'x; COMMIT'",
            "SELECT \"a;b\", '--' FROM ended",
            "UPDATE commits SET a = $1 WHERE b = $2",
            "-- COMMIT\nSELECT 1",
            "PREPARE transactions AS SELECT 1",
            "SET TRANSACTION READ ONLY",
            "SELECT 'it''s; COMMIT'",
        ];
        check(&everywhere, &BOTH, None);
        let postgres = [
            "SELECT $tag$; ROLLBACK; $tag$",
            r"INSERT INTO t VALUES (E'it\'s; commit', 5)",
            "SELECT 1 /* a /* b */ ; COMMIT */",
            "CREATE OR REPLACE FUNCTION f() RETURNS int AS 'BEGIN; END;' LANGUAGE plpgsql",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;",
        ];
        check(&postgres, &[POSTGRES], None);
        let sqlite = [
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = 1; END;",
            "CREATE TRIGGER t AFTER UPDATE OF begin ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 1; END",
        ];
        check(&sqlite, &[SQLITE], None);
    }

    #[test]
    fn empty_statements_and_comments_do_not_count_as_statements() {
        for (database, read) in BOTH {
            for sql in ["SELECT 1; SELECT 2", "SELECT ';'; (SELECT 2)", ";SELECT 1;;SELECT 2"] {
                assert!(read(sql).several, "{database}: {sql}");
            }
            for sql in ["SELECT 1", "SELECT ';'", ";;SELECT 1 ; ; -- SELECT 2\n/* SELECT 3; */"] {
                assert!(!read(sql).several, "{database}: {sql}");
            }
        }
    }
}
