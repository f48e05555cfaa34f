//! The verdict of a handler about its own answer.

/// The word of a handler about its own answer, in the response's extensions; it overrides the rules by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Record it: every retry gets it again.
    Final,
    /// It happened, and this answer is not the last one: each retry asks the [`Recover`](crate::Recover) hook for the
    /// answer as of then, until the hook says [`Recovered::Done`](crate::Recovered::Done).
    ///
    /// Without a hook the answer is recorded as it is, and so it is where nothing says that the attempt may have had
    /// an effect: with [`Effects::Local`](crate::Effects::Local), and with `Marked` before the mark.
    Pending,
    /// The handler did nothing: the key is released. After a mark this is not believed, and the answer is recorded.
    Retryable,
    /// Something may have happened, and this answer does not tell: leave the record indeterminate.
    Unknown,
    /// It happened, but do not store the answer: retries are refused.
    NoStore,
}
