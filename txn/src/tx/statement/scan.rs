//! Finds the words, the semicolons and a few other signs of SQL text: what stands outside of strings, quoted names and comments.
//!
//! The two databases disagree about where those end, so the dialect decides. Text that ends inside of a
//! quote or a comment ends there.

/// Whose rules a text is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// By the name that sqlx gives the database.
    pub(super) fn named(database: &str) -> Self {
        if database == "SQLite" { Self::Sqlite } else { Self::Postgres }
    }
}

/// What a statement is made of, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'s> {
    /// A keyword or an unquoted name.
    Word(&'s str),
    Semicolon,
    Comma,
    /// An opening parenthesis.
    Open,
    /// A closing one.
    Close,
    Equals,
}

/// The pieces of a text, from left to right.
pub(super) struct Pieces<'s> {
    rest: &'s str,
    dialect: Dialect,
}

impl<'s> Pieces<'s> {
    pub(super) fn of(sql: &'s str, dialect: Dialect) -> Self {
        Self { rest: sql, dialect }
    }

    /// The length of what stands at the start of the rest and is neither a word nor a semicolon.
    fn other(&self, first: char) -> usize {
        let (text, postgres) = (self.rest, self.dialect == Dialect::Postgres);
        match first {
            '\'' | '"' => quoted(text, first),
            '`' if !postgres => quoted(text, '`'),
            '[' if !postgres => quoted(text, ']'),
            '$' if postgres => dollar_quoted(text),
            // A parameter may have a name, and the name may have dollars.
            '$' => 1 + word(&text[1..]),
            '-' if text.starts_with("--") => line_comment(text, self.dialect),
            '/' if text.starts_with("/*") => block_comment(text, self.dialect),
            _ => first.len_utf8(),
        }
    }
}

impl<'s> Iterator for Pieces<'s> {
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
            // SQLite skips the mark that some editors put before a text.
            if !belongs_to_a_word(first) || first == '$' || first == '\u{feff}' {
                self.rest = &self.rest[self.other(first)..];
                continue;
            }
            let (word, rest) = self.rest.split_at(word(self.rest));
            let escapes = self.dialect == Dialect::Postgres && word.eq_ignore_ascii_case("E");
            self.rest = if escapes && rest.starts_with('\'') { &rest[escaped(rest)..] } else { rest };
            return Some(Piece::Word(word));
        }
    }
}

/// Names may contain dollars on both databases, and every letter there is.
fn belongs_to_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || (!c.is_ascii() && !c.is_whitespace())
}

fn word(text: &str) -> usize {
    text.find(|c| !belongs_to_a_word(c)).unwrap_or(text.len())
}

/// A doubled quote reads as two quoted texts side by side, which ends at the same place.
fn quoted(text: &str, end: char) -> usize {
    text[1..].find(end).map_or(text.len(), |at| at + 2)
}

/// The string behind `E`, in which a backslash takes the meaning of the quote after it away.
fn escaped(text: &str) -> usize {
    let mut at = 1;
    while let Some(found) = text[at..].find(['\\', '\'']) {
        at += found + 1;
        if text.as_bytes()[at - 1] == b'\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        } else if text[at..].starts_with('\'') {
            at += 1;
        } else {
            match continued(&text[at..]) {
                Some(more) => at += more,
                None => return at,
            }
        }
    }
    text.len()
}

/// A string goes on behind a line break: the length up to where it does.
fn continued(text: &str) -> Option<usize> {
    let start = text.trim_start();
    let blank = text.len() - start.len();
    (start.starts_with('\'') && text[..blank].contains(['\n', '\r'])).then_some(blank + 1)
}

/// The length of a dollar-quoted string, or of the dollar alone (`$1`).
fn dollar_quoted(text: &str) -> usize {
    let end = text[1..].find(|c| c == '$' || !belongs_to_a_word(c));
    match end {
        Some(end)
            if text[1 + end..].starts_with('$') && !text[1..].starts_with(|c: char| c.is_ascii_digit()) =>
        {
            let tag = &text[..end + 2];
            text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
        }
        _ => 1,
    }
}

fn line_comment(text: &str, dialect: Dialect) -> usize {
    let end = match dialect {
        Dialect::Postgres => text.find(['\n', '\r']),
        Dialect::Sqlite => text.find('\n'),
    };
    end.unwrap_or(text.len())
}

/// Comments nest on PostgreSQL only.
fn block_comment(text: &str, dialect: Dialect) -> usize {
    let (mut at, mut depth) = (2, 1);
    while let Some(found) = text[at..].find(['*', '/']) {
        at += found;
        if text[at..].starts_with("*/") {
            at += 2;
            depth -= 1;
            if depth == 0 {
                return at;
            }
        } else if dialect == Dialect::Postgres && text[at..].starts_with("/*") {
            at += 2;
            depth += 1;
        } else {
            at += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str, dialect: Dialect) -> Vec<&str> {
        let pieces = Pieces::of(sql, dialect);
        pieces
            .filter_map(|piece| match piece {
                Piece::Word(word) => Some(word),
                Piece::Semicolon => Some(";"),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn each_database_ends_its_strings_names_and_comments_itself() {
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
            assert_eq!(words(sql, Dialect::Postgres), postgres, "PostgreSQL: {sql}");
            assert_eq!(words(sql, Dialect::Sqlite), sqlite, "SQLite: {sql}");
        }
    }

    #[test]
    fn text_that_never_ends_its_quote_is_read_to_the_end() {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            for sql in ["'a; b", "\"a; b", "/* a; b", "-- a; b", "'", "/*", "--"] {
                assert!(words(sql, dialect).is_empty(), "{dialect:?}: {sql}");
            }
        }
        for sql in ["E'a; b", "E'a\\", "E'\\é; b"] {
            assert_eq!(words(sql, Dialect::Postgres), ["E"], "{sql}");
        }
        assert!(words("$$a; b", Dialect::Postgres).is_empty());
        assert_eq!(words("\u{feff}a", Dialect::Sqlite), ["a"]);
    }
}
