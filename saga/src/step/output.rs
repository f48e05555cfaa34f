//! Steps as their outputs are read: one name for the four kinds of step.

use super::{ForwardStep, Payload, SagaStep};

/// Marks steps with an undo.
#[derive(Debug)]
pub struct Undoable;

/// Marks steps without an undo.
#[derive(Debug)]
pub struct Forward;

/// A step of any kind whose output a later step reads with [`StepContext::output`](crate::StepContext::output).
/// Implemented for you. `K` is the kind of the step; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a step",
    note = "implement `SagaStep`, `ForwardStep`, `LocalStep` or `LocalForwardStep` for it"
)]
pub trait StepOutput<K> {
    /// The output of the step.
    type Value: Payload;
    /// The name of the step.
    const STEP: &'static str;
}

impl<S: SagaStep> StepOutput<Undoable> for S {
    type Value = S::Output;
    const STEP: &'static str = S::NAME;
}

impl<S: ForwardStep> StepOutput<Forward> for S {
    type Value = S::Output;
    const STEP: &'static str = S::NAME;
}
