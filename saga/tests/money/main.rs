//! What may never happen to money: an effect that is forgotten, an undo that goes on past one that failed, and an undo
//! behind a pivot that happened.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod effects;
mod pivot;
mod undo;
