//! Three things must never happen to money: an effect is forgotten, undoing goes on past an undo that failed, or anything
//! is undone behind a pivot that happened.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod effects;
mod pivot;
mod undo;
