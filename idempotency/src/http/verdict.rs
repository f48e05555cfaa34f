//! The verdict of a handler about its own answer.

/// The word of a handler about its own answer, in the response's extensions; it overrides the rules by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Record it: every retry gets it again.
    Final,
    /// The handler did nothing: the key is released. After a mark this is not believed, and the answer is recorded.
    Retryable,
    /// Something may have happened, and this answer does not tell: leave the record indeterminate.
    Unknown,
    /// It happened, but do not store the answer: retries are refused.
    NoStore,
}
