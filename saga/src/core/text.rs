//! The texts that are stored of a saga, in a form that every store takes.

use crate::record::StepRow;

/// Adds a reason to those that are stored. If they are too long together, the older ones are cut.
pub(crate) fn joined(before: Option<&str>, mut reason: String) -> String {
    cut(&mut reason, PART);
    match before {
        Some(before) if before.contains(&reason) => before.into(),
        Some(before) => {
            let mut before = before.to_owned();
            cut(&mut before, TEXT - reason.len() - SEPARATOR.len() - CUT.len_utf8());
            before + SEPARATOR + &reason
        }
        None => reason,
    }
}

/// The longest text kept of an error, in bytes: some answer with a whole page.
const TEXT: usize = 8 << 10;

const SEPARATOR: &str = "; ";

/// The sign of a cut.
const CUT: char = '…';

/// The longest part of a reason that has several: a long one must not cut off those after it.
const PART: usize = TEXT / 4;

fn cut(text: &mut String, longest: usize) {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push(CUT);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_and_the_last_one_is_never_cut_off() {
        assert_eq!(joined(None, "a".into()), "a");
        assert_eq!(joined(Some("a"), "b".into()), "a; b");
        assert_eq!(joined(Some("a; b"), "b".into()), "a; b");
        let long = |letter: &str| letter.repeat(3000);
        let all = ["a", "b", "c", "d", "e"]
            .iter()
            .fold(None, |before: Option<String>, letter| Some(joined(before.as_deref(), long(letter))));
        let stored = storable_text(all.unwrap_or_default());
        assert!(stored.ends_with("e…") && stored.starts_with('a'), "{stored}");
        assert!(stored.len() <= TEXT, "{}", stored.len());
        // A short one costs the older ones no more than its room.
        let older = "x".repeat(8000);
        let both = joined(Some(&older), "cancelled".into());
        assert!(both.starts_with(&older) && both.ends_with("x; cancelled"), "{} bytes", both.len());
    }

    #[test]
    fn a_text_is_cut_only_if_it_is_too_long() {
        let fits = "x".repeat(8192);
        assert_eq!(storable_text(fits.clone()), fits);
        let cut = storable_text(format!("{fits}y"));
        assert_eq!(cut, format!("{fits}…"));
        // A part of 2 KiB stays as it is.
        let part = "x".repeat(2048);
        assert_eq!(joined(None, part.clone()), part);
        assert_eq!(storable_text("a\0b".into()), "a\u{fffd}b");
    }
}
