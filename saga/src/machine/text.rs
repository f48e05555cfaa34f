//! The texts that are stored of a saga, in a form that every store takes.

use crate::record::StepRow;

/// Adds a reason to the one that is stored.
pub(crate) fn joined(before: Option<&str>, mut reason: String) -> String {
    cut(&mut reason, PART);
    match before {
        Some(before) if before.contains(&reason) => before.into(),
        Some(before) => format!("{before}; {reason}"),
        None => reason,
    }
}

/// The longest text kept of an error, in bytes: some answer with a whole page.
const TEXT: usize = 8 << 10;

/// The longest part of a reason that has several: a long one must not cut off those after it.
const PART: usize = TEXT / 4;

fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push('…');
    }
}

/// PostgreSQL stores no NUL in text, and an error message must not cost the record that carries it.
pub(super) fn storable_text(mut text: String) -> String {
    cut(&mut text, TEXT);
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

pub(super) fn storable(mut row: StepRow) -> StepRow {
    row.error = row.error.map(storable_text);
    row.evidence = row.evidence.map(storable_text);
    row
}
