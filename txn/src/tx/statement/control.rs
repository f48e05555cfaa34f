//! Reads what SQL text does to the transaction: whether it begins, ends or nests it, whether it is more than one
//! statement, and what it would leave behind.
//!
//! A guard against accidents, not against malice: it looks at the first words of each statement.

use super::scan::{Dialect, Piece, Pieces};
use super::session::{Leftover, Trail};

/// What a text would do to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Begin or end it.
    Transaction,
    /// Nest it.
    Savepoint,
}

/// What there is to know about a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// The first statement that controls the transaction.
    pub(super) control: Option<Control>,
    /// Whether something stands behind the first semicolon. The body of a trigger counts.
    pub(super) several: bool,
    /// The first thing that would stay with the session.
    pub(super) leaves: Option<Leftover>,
    /// The role may be another one up to the end of the transaction.
    pub(super) role: bool,
    /// The text may do things that cannot be read from it.
    pub(super) opaque: bool,
}

/// Reads the whole text.
pub(super) fn read(sql: &str, dialect: Dialect) -> Reading {
    let mut reading = Reading::default();
    let mut statement = Statement::default();
    let mut trail = Trail::new(dialect);
    let mut ended = false;
    for piece in Pieces::of(sql, dialect) {
        match piece {
            Piece::Word(word) => {
                reading.several |= ended;
                let control = statement.add(word, dialect);
                reading.control = reading.control.or(control);
            }
            Piece::Semicolon => {
                ended |= statement.words > 0;
                statement = Statement { in_body: statement.in_body, ..Statement::default() };
                if !statement.in_body {
                    reading.take_in(&mut trail);
                    trail = Trail::new(dialect);
                }
                continue;
            }
            _ => {}
        }
        if !statement.in_body {
            trail.add(piece);
        }
    }
    reading.take_in(&mut trail);
    reading
}

impl Reading {
    /// A statement of the text is over.
    fn take_in(&mut self, trail: &mut Trail<'_>) {
        trail.end();
        self.leaves = self.leaves.or(trail.leaves);
        self.role |= trail.role;
        self.opaque |= trail.opaque;
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
    /// Inside the unquoted body of a trigger or a function, whose statements end in semicolons too. Its
    /// END stands where a statement would.
    in_body: bool,
}

impl Statement {
    /// Takes the next word in; answers if it controls the transaction.
    fn add(&mut self, word: &str, dialect: Dialect) -> Option<Control> {
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
            self.in_body = match dialect {
                Dialect::Sqlite => self.triggers && is("BEGIN"),
                Dialect::Postgres => begins && is("ATOMIC"),
            };
            self.begins = is("BEGIN") || self.in_body;
            return None;
        }
        if first {
            return control(word);
        }
        // Takes the transaction away from the connection; `PREPARE name AS` is only a statement.
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

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Postgres, Dialect::Sqlite];

    #[track_caller]
    fn check(sqls: &[&str], dialects: &[Dialect], expected: Option<Control>) {
        for dialect in dialects {
            for sql in sqls {
                assert_eq!(read(sql, *dialect).control, expected, "{dialect:?}: {sql}");
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
        check(&postgres, &[Dialect::Postgres], Some(Control::Transaction));
        let sqlite = [
            "SELECT [it's]; COMMIT",
            "SELECT $a$; COMMIT; SELECT $a$",
            "/* a /* b */ COMMIT",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = CASE WHEN 1 THEN 2 END; END; COMMIT",
            "\u{feff}COMMIT",
        ];
        check(&sqlite, &[Dialect::Sqlite], Some(Control::Transaction));
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
        check(&postgres, &[Dialect::Postgres], None);
        let sqlite = [
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = 1; END;",
            "CREATE TRIGGER t AFTER UPDATE OF begin ON a BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 1; END",
        ];
        check(&sqlite, &[Dialect::Sqlite], None);
    }

    #[test]
    fn more_than_one_statement_is_counted_by_what_runs() {
        for dialect in BOTH {
            for sql in ["SELECT 1; SELECT 2", "SELECT ';'; (SELECT 2)", ";SELECT 1;;SELECT 2"] {
                assert!(read(sql, dialect).several, "{dialect:?}: {sql}");
            }
            for sql in ["SELECT 1", "SELECT ';'", ";;SELECT 1 ; ; -- SELECT 2\n/* SELECT 3; */"] {
                assert!(!read(sql, dialect).several, "{dialect:?}: {sql}");
            }
        }
    }
}
