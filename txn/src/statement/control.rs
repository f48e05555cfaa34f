//! Recognises SQL text that begins, ends or nests a transaction.
//!
//! A guard against accidents, not against malice: it reads the first word of each statement and
//! knows strings, quoted names, comments and dollar quotes well enough to find the semicolons.

/// What a text would do to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Begin or end it.
    Transaction,
    /// Nest it.
    Savepoint,
}

/// The first statement in `sql` that controls the transaction.
pub(super) fn transaction_control(sql: &str) -> Option<Control> {
    let mut rest = sql;
    loop {
        rest = skip_blank(rest);
        if rest.is_empty() {
            return None;
        }
        let word = first_word(rest);
        if let Some(control) = control(word).or_else(|| prepared(word, rest)) {
            return Some(control);
        }
        // The body of a trigger or a function has semicolons and an END of its own.
        if word.eq_ignore_ascii_case("CREATE") && has_body(rest) {
            return None;
        }
        rest = after_semicolon(rest);
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

/// `PREPARE TRANSACTION` takes the transaction away from the connection; `PREPARE name AS` is only a statement.
fn prepared(word: &str, statement: &str) -> Option<Control> {
    let next = first_word(skip_blank(&statement[word.len()..]));
    let prepares = word.eq_ignore_ascii_case("PREPARE") && next.eq_ignore_ascii_case("TRANSACTION");
    prepares.then_some(Control::Transaction)
}

fn has_body(statement: &str) -> bool {
    let mut words = statement.split_ascii_whitespace().take(6);
    words
        .any(|word| ["TRIGGER", "FUNCTION", "PROCEDURE"].iter().any(|known| word.eq_ignore_ascii_case(known)))
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Skips white space, comments and empty statements.
fn skip_blank(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        let next = comment_end(text);
        if next == 0 {
            return text;
        }
        text = &text[next..];
    }
}

/// The length of the comment at the start of `text`; zero when there is none.
fn comment_end(text: &str) -> usize {
    if text.starts_with("--") {
        text.find('\n').map_or(text.len(), |at| at + 1)
    } else if text.starts_with("/*") {
        text.find("*/").map_or(text.len(), |at| at + 2)
    } else {
        0
    }
}

/// The text after the first semicolon that is not inside a quote or a comment.
fn after_semicolon(text: &str) -> &str {
    let mut at = 0;
    while let Some(found) = text[at..].find([';', '\'', '"', '-', '/', '$']) {
        at += found;
        let here = &text[at..];
        at += match here.as_bytes()[0] {
            b';' => return &here[1..],
            quote @ (b'\'' | b'"') => quoted_end(here, char::from(quote)),
            b'$' => dollar_end(here),
            _ => comment_end(here).max(1),
        };
    }
    ""
}

fn quoted_end(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

/// The length of a dollar-quoted string, or of the dollar alone (`$1`).
fn dollar_end(text: &str) -> usize {
    let tag_end = text[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    match tag_end {
        Some(end) if text[1 + end..].starts_with('$') => {
            let tag = &text[..end + 2];
            text[tag.len()..].find(tag).map_or(text.len(), |at| at + 2 * tag.len())
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_controls_the_transaction_is_recognised() {
        for sql in [
            "COMMIT",
            "  rollback to x",
            "/* quick */ -- fix\n end",
            "INSERT INTO t VALUES (1); COMMIT",
            "SELECT ';'; begin",
            "SELECT $$;$$;abort",
            "SELECT 1 /* ; */;;ROLLBACK",
            "PREPARE TRANSACTION 'later'",
        ] {
            assert_eq!(transaction_control(sql), Some(Control::Transaction), "{sql}");
        }
        assert_eq!(transaction_control("SAVEPOINT a"), Some(Control::Savepoint));
        assert_eq!(transaction_control("SELECT 1; RELEASE a"), Some(Control::Savepoint));
    }

    #[test]
    fn text_that_only_mentions_the_words_passes() {
        for sql in [
            "",
            ";",
            "SELECT 'x; COMMIT'",
            "SELECT \"a;b\", '--' FROM ended",
            "UPDATE commits SET a = $1 WHERE b = $2",
            "SELECT $tag$; ROLLBACK; $tag$",
            "-- COMMIT\nSELECT 1",
            "PREPARE transactions AS SELECT 1",
            "SELECT 'it''s; COMMIT'",
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE b SET c = 1; END;",
            "CREATE OR REPLACE FUNCTION f() RETURNS int AS 'BEGIN; END;' LANGUAGE plpgsql",
        ] {
            assert_eq!(transaction_control(sql), None, "{sql}");
        }
    }
}
