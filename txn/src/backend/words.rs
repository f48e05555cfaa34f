//! The words of a statement, as the readers of its effects need them.

/// The words of a statement that were read so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Words<'s> {
    pub(super) count: u32,
    first: &'s str,
    last: &'s str,
}

impl<'s> Words<'s> {
    /// Takes the next word in; gives the words before it, and counts it.
    pub(super) fn add(&mut self, word: &'s str) -> Self {
        let before =
            Self { count: self.count + 1, first: if self.count == 0 { word } else { self.first }, ..*self };
        *self = Self { last: word, ..before };
        before
    }

    /// Tells whether the statement begins with `word`.
    pub(super) fn begin_with(&self, word: &str) -> bool {
        self.first.eq_ignore_ascii_case(word)
    }

    /// Tells whether `word` was the last one.
    pub(super) fn end_with(&self, word: &str) -> bool {
        self.last.eq_ignore_ascii_case(word)
    }
}

/// Tells whether `word` is one of `words`, in any case.
pub(super) fn is_among(word: &str, words: &[&str]) -> bool {
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}
