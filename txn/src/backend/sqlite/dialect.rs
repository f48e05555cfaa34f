//! The rules by which SQLite reads the text of a statement.

use super::effects::SqliteEffects;
use crate::backend::dialect::Dialect;
use crate::backend::lexer::{skip_block_comment, skip_line_comment, skip_quoted, skip_word};

/// The dialect of SQLite.
#[derive(Debug)]
pub struct SqliteDialect;

impl Dialect for SqliteDialect {
    type Effects<'s> = SqliteEffects<'s>;

    fn skip(text: &str, first: char) -> usize {
        match first {
            '\'' | '"' | '`' => skip_quoted(text, first),
            '[' => skip_quoted(text, ']'),
            // A parameter may have a name, and the name may have dollars.
            '$' => 1 + skip_word(&text[1..]),
            '-' if text.starts_with("--") => skip_line_comment(text, &['\n']),
            '/' if text.starts_with("/*") => skip_block_comment(text, false),
            _ => first.len_utf8(),
        }
    }

    fn skip_string_after(_word: &str, _text: &str) -> usize {
        0
    }

    fn begins_body(creates_trigger: bool, _after_begin: bool, word: &str) -> bool {
        creates_trigger && word.eq_ignore_ascii_case("BEGIN")
    }
}
