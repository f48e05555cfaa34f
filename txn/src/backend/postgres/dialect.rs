//! The rules by which PostgreSQL reads the text of a statement.

use super::effects::PostgresEffects;
use crate::backend::dialect::Dialect;
use crate::backend::lexer::{belongs_to_a_word, skip_block_comment, skip_line_comment, skip_quoted};

/// The dialect of PostgreSQL.
#[derive(Debug)]
pub struct PostgresDialect;

impl Dialect for PostgresDialect {
    type Effects<'s> = PostgresEffects<'s>;

    fn skip(text: &str, first: char) -> usize {
        match first {
            '\'' | '"' => skip_quoted(text, first),
            '$' => skip_dollar_quoted(text),
            '-' if text.starts_with("--") => skip_line_comment(text, &['\n', '\r']),
            '/' if text.starts_with("/*") => skip_block_comment(text, true),
            _ => first.len_utf8(),
        }
    }

    fn skip_string_after(word: &str, text: &str) -> usize {
        if word.eq_ignore_ascii_case("E") && text.starts_with('\'') { skip_escaped(text) } else { 0 }
    }

    fn begins_body(_creates_trigger: bool, after_begin: bool, word: &str) -> bool {
        after_begin && word.eq_ignore_ascii_case("ATOMIC")
    }
}

/// Measures the string behind `E`, in which a backslash takes the meaning of the quote after it away.
fn skip_escaped(text: &str) -> usize {
    let mut at = 1;
    while let Some(found) = text[at..].find(['\\', '\'']) {
        at += found + 1;
        if text.as_bytes()[at - 1] == b'\\' {
            at += text[at..].chars().next().map_or(0, char::len_utf8);
        } else if text[at..].starts_with('\'') {
            at += 1;
        } else {
            match skip_to_next_part(&text[at..]) {
                Some(more) => at += more,
                None => return at,
            }
        }
    }
    text.len()
}

/// Measures the way to the next part of a string, which goes on behind a line break.
fn skip_to_next_part(text: &str) -> Option<usize> {
    let start = text.trim_start();
    let blank = text.len() - start.len();
    (start.starts_with('\'') && text[..blank].contains(['\n', '\r'])).then_some(blank + 1)
}

/// Measures a dollar-quoted string, or the dollar alone (`$1`).
fn skip_dollar_quoted(text: &str) -> usize {
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
