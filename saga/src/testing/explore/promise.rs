//! The promises that people get from a saga that runs.

/// The answer to a person who asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// It goes forward no more.
    TurnsForCertain,
    /// It turns back with its next result.
    Turns,
    /// It stops with its next result.
    Pauses,
}
