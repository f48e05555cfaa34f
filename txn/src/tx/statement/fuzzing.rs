//! The body of the fuzz target `sql_scanner`, and the replay of its corpus.

use super::control::read;
use super::scan::Pieces;
use crate::backend::Driver;
use crate::backend::dialect::{Dialect, Piece};

/// Reads `data` as SQL text of each database, and checks rules that every text keeps.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn sql_scanner(data: &[u8]) {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    check::<<sqlx::Postgres as Driver>::Dialect>(sql);
    check::<<sqlx::Sqlite as Driver>::Dialect>(sql);
}

fn check<D: Dialect>(sql: &str) {
    let words = count_words::<D>(sql);
    let alone = read::<D>(sql);
    // A statement in front neither hides what a text does nor adds to it.
    let behind = read::<D>(&format!("SELECT 1;{sql}"));
    assert_eq!((alone.control, alone.effects), (behind.control, behind.effects), "{sql:?}");
    assert_eq!(behind.several, words > 0, "{sql:?}");
    let comment = format!("-- {}", sql.replace(['\n', '\r'], "\n-- "));
    assert_eq!(count_words::<D>(&comment), 0, "{comment:?}");
}

/// Counts the words, each of which stands behind the one before.
fn count_words<D: Dialect>(sql: &str) -> usize {
    let (mut end, mut words) = (0, 0);
    for piece in Pieces::<D>::of(sql) {
        let Piece::Word(word) = piece else { continue };
        let start = word.as_ptr().addr() - sql.as_ptr().addr();
        assert!(start >= end && !word.is_empty(), "{sql:?}");
        assert_eq!(&sql[start..start + word.len()], word);
        (end, words) = (start + word.len(), words + 1);
    }
    words
}
