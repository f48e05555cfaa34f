//! The ways in which a step answers in a schedule.

/// The way in which one step answers for the length of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    AsItIs,
    Refused(usize),
    AnswerLost(usize),
    RequestLost(usize),
    /// The last step is refused, and the undo of this one loses its first answer.
    UndoLost(usize),
    /// The last step is refused, and so is the first undo of this one, until a person helps.
    UndoRefused(usize),
}
