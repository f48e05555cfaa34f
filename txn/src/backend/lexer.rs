//! Measures the parts of SQL text that several databases read alike.

/// Tells whether a character can be part of a name: names may contain dollars and every letter there is.
pub(crate) fn belongs_to_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || (!c.is_ascii() && !c.is_whitespace())
}

/// Measures the word at the start of `text`.
pub(crate) fn skip_word(text: &str) -> usize {
    text.find(|c| !belongs_to_a_word(c)).unwrap_or(text.len())
}

/// Measures a quoted text. A doubled quote reads as two quoted texts side by side, which ends at the same place.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn skip_quoted(text: &str, end: char) -> usize {
    text[1..].find(end).map_or(text.len(), |at| at + 2)
}

/// Measures a comment up to the end of its line.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn skip_line_comment(text: &str, ends: &[char]) -> usize {
    text.find(ends).unwrap_or(text.len())
}

/// Measures a comment between `/*` and `*/`.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn skip_block_comment(text: &str, nests: bool) -> usize {
    let (mut at, mut depth) = (2, 1);
    while let Some(found) = text[at..].find(['*', '/']) {
        at += found;
        if text[at..].starts_with("*/") {
            at += 2;
            depth -= 1;
            if depth == 0 {
                return at;
            }
        } else if nests && text[at..].starts_with("/*") {
            at += 2;
            depth += 1;
        } else {
            at += 1;
        }
    }
    text.len()
}
