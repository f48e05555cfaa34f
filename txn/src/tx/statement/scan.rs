//! Finds the words, the semicolons and a few other signs of SQL text: everything outside of strings, quoted names and
//! comments.
//!
//! The databases disagree about where those end, so the dialect decides. Text that ends inside of a quote or a
//! comment ends there.

use std::marker::PhantomData;

use crate::backend::dialect::{Dialect, Piece};
use crate::backend::lexer::{belongs_to_a_word, skip_word};

/// The pieces of a text, from left to right.
pub(super) struct Pieces<'s, D> {
    rest: &'s str,
    dialect: PhantomData<D>,
}

impl<'s, D: Dialect> Pieces<'s, D> {
    /// Cuts `sql` into pieces.
    pub(super) fn of(sql: &'s str) -> Self {
        Self { rest: sql, dialect: PhantomData }
    }
}

impl<'s, D: Dialect> Iterator for Pieces<'s, D> {
    type Item = Piece<'s>;

    fn next(&mut self) -> Option<Piece<'s>> {
        loop {
            let first = self.rest.chars().next()?;
            let sign = match first {
                ';' => Some(Piece::Semicolon),
                ',' => Some(Piece::Comma),
                '(' => Some(Piece::Open),
                ')' => Some(Piece::Close),
                '=' => Some(Piece::Equals),
                _ => None,
            };
            if sign.is_some() {
                self.rest = &self.rest[1..];
                return sign;
            }
            // A byte order mark is not a letter.
            if !belongs_to_a_word(first) || first == '$' || first == '\u{feff}' {
                self.rest = &self.rest[D::skip(self.rest, first)..];
                continue;
            }
            let (word, rest) = self.rest.split_at(skip_word(self.rest));
            self.rest = &rest[D::skip_string_after(word, rest)..];
            return Some(Piece::Word(word));
        }
    }
}

#[cfg(all(test, feature = "postgres", feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::backend::Driver;

    type Postgres = <sqlx::Postgres as Driver>::Dialect;
    type Sqlite = <sqlx::Sqlite as Driver>::Dialect;

    fn words<D: Dialect>(sql: &str) -> Vec<&str> {
        Pieces::<D>::of(sql)
            .filter_map(|piece| match piece {
                Piece::Word(word) => Some(word),
                Piece::Semicolon => Some(";"),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn strings_names_and_comments_end_by_the_rules_of_each_database() {
        for (sql, postgres, sqlite) in [
            (r"E'it\'s'; a", &["E", ";", "a"][..], &["E", "s"][..]),
            (r"E'it''s'; a", &["E", ";", "a"], &["E", ";", "a"]),
            (r"E'\\'; a", &["E", ";", "a"], &["E", ";", "a"]),
            ("E'a'\n'b\\'; c'; d", &["E", ";", "d"], &["E", ";", "c"]),
            (r"date'it\'; a", &["date", ";", "a"], &["date", ";", "a"]),
            ("/* a /* b */ c */ d", &["d"], &["c", "d"]),
            ("-- a\r b", &["b"], &[]),
            ("$t$; a $t$ b", &["b"], &[";", "a", "b"]),
            ("a$b$; c", &["a$b$", ";", "c"], &["a$b$", ";", "c"]),
            ("$1$2; a", &["1$2", ";", "a"], &[";", "a"]),
            ("[it's] ; a", &["it"], &[";", "a"]),
            ("`it's` ; a", &["it"], &[";", "a"]),
        ] {
            assert_eq!(words::<Postgres>(sql), postgres, "PostgreSQL: {sql}");
            assert_eq!(words::<Sqlite>(sql), sqlite, "SQLite: {sql}");
        }
    }

    #[test]
    fn an_unclosed_quote_is_read_to_the_end() {
        for sql in ["'a; b", "\"a; b", "/* a; b", "-- a; b", "'", "/*", "--"] {
            assert!(words::<Postgres>(sql).is_empty(), "PostgreSQL: {sql}");
            assert!(words::<Sqlite>(sql).is_empty(), "SQLite: {sql}");
        }
        for sql in ["E'a; b", "E'a\\", "E'\\é; b"] {
            assert_eq!(words::<Postgres>(sql), ["E"], "{sql}");
        }
        assert!(words::<Postgres>("$$a; b").is_empty());
        assert_eq!(words::<Sqlite>("\u{feff}a"), ["a"]);
    }
}
