//! The pure core: the transitions of a saga, and the meaning of a journal. No async, no clock, no IO.
//!
//! Start at [`transitions::TRANSITIONS`]; `state.rs` turns journal rows into the next thing to do.

mod shape;
mod state;
mod text;
pub mod transitions;
mod verbs;

pub(crate) use shape::{Shape, StepShape};
pub(crate) use state::{Finding, Next, State, Undoing};
pub(crate) use text::joined;
pub(crate) use transitions::{Illegal, Trigger, transition};
pub use verbs::Resolution;
pub(crate) use verbs::{VerbError, abort, compensate, find_out, resolve, resume, retry};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;
