//! Steps without their types, as the engine sees them. The only place where stored JSON becomes a
//! step's own types again.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::codec::Unstorable;
use crate::policy::StepPolicy;
use crate::record::{Document, unquoted};
use crate::step::context::{Frame, StepContext};
use crate::step::output::{Forward, Undoable};
use crate::step::{Evidence, Executed, ForwardStep, Payload, Probe, SagaStep, StepError};

/// The decoded input of a saga.
pub(crate) type AnyInput = Arc<dyn Any + Send + Sync>;

/// The future that a step method returns.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StepError>> + Send + 'a>>;

/// A step without its types.
pub(crate) trait AnyStep: Send + Sync {
    fn name(&self) -> &'static str;
    fn uses(&self) -> &'static [&'static str];
    fn policy(&self) -> StepPolicy;
    /// Checks that later steps and the undo can read an output that a person stated.
    fn check_output(&self, plain: &Document) -> Result<(), String>;
    fn execute(&self, input: AnyInput, frame: Frame) -> Answer<'_, Document>;
    fn probe(&self, input: AnyInput, frame: Frame) -> Answer<'_, Probe<Document>>;
    fn compensate(&self, input: AnyInput, frame: Frame, done: Option<Document>) -> Answer<'_, Evidence>;
    /// Set for a step that runs in a transaction of the store; its other methods are then never called.
    fn local(&self) -> Option<&dyn AnyLocal> {
        None
    }
}

/// A connection in its transaction, of whatever database the store is in.
pub(crate) type LocalConnection = dyn Any + Send;

/// A local step without its types. Of its errors only [`StepError::Unknown`] is different: it says
/// that the database went away. In both cases no effect of the step is left once the transaction is dropped.
pub(crate) trait AnyLocal: Send + Sync {
    fn database(&self) -> &'static str;
    fn execute<'a>(
        &'a self,
        input: AnyInput,
        frame: Frame,
        connection: &'a mut LocalConnection,
    ) -> Answer<'a, Document>;
    fn compensate<'a>(
        &'a self,
        input: AnyInput,
        frame: Frame,
        done: Document,
        connection: &'a mut LocalConnection,
    ) -> Answer<'a, Evidence>;
}

/// Only [`SagaStep`] and [`ForwardStep`] are steps.
pub trait Sealed<K> {}
impl<S: SagaStep> Sealed<Undoable> for S {}
impl<S: ForwardStep> Sealed<Forward> for S {}

pub(super) struct WithUndo<S>(pub(super) S);
pub(super) struct WithoutUndo<S>(pub(super) S);

pub(super) fn context<I: Payload>(input: AnyInput, frame: Frame) -> Result<StepContext<I>, StepError> {
    match input.downcast::<I>() {
        Ok(input) => Ok(StepContext { input, frame }),
        Err(_) => Err(StepError::fatal("the input is of another type than this step expects")),
    }
}

fn encode<T: Payload>(frame: &Frame, output: &T) -> Result<Document, StepError> {
    let sealed = frame.sealer.seal(&frame.output_of(frame.step), output);
    sealed.map_err(|error| {
        let reason = format!("the output of {} cannot be stored: {error}", frame.step);
        match error {
            // The effect has happened; only its answer is lost.
            Unstorable::Encoding(_) => StepError::unknown(reason),
            // Another try would be as long: the saga is parked with this step unknown.
            Unstorable::TooLong(_) => StepError::fatal(reason),
        }
    })
}

pub(super) fn decodes<T: Payload>(plain: &Document) -> Result<(), String> {
    plain.decode::<T>().map(drop).map_err(|error| unquoted(&error))
}

fn encode_probe<T: Payload>(frame: &Frame, probe: Probe<T>) -> Result<Probe<Document>, StepError> {
    Ok(match probe {
        Probe::Applied(output) => Probe::Applied(encode(frame, &output)?),
        Probe::NotApplied => Probe::NotApplied,
        Probe::NotSeenYet => Probe::NotSeenYet,
        Probe::Unknown => Probe::Unknown,
    })
}

/// Implements the erased step, with an undo or without one.
macro_rules! goes_forward {
    () => {
        fn name(&self) -> &'static str {
            S::NAME
        }

        fn uses(&self) -> &'static [&'static str] {
            S::USES
        }

        fn policy(&self) -> StepPolicy {
            self.0.policy()
        }

        fn check_output(&self, plain: &Document) -> Result<(), String> {
            decodes::<S::Output>(plain)
        }

        fn execute(&self, input: AnyInput, frame: Frame) -> Answer<'_, Document> {
            Box::pin(async move {
                let cx = context(input, frame)?;
                encode(&cx.frame, &self.0.execute(&cx).await?)
            })
        }

        fn probe(&self, input: AnyInput, frame: Frame) -> Answer<'_, Probe<Document>> {
            Box::pin(async move {
                let cx = context(input, frame)?;
                encode_probe(&cx.frame, self.0.probe(&cx).await?)
            })
        }
    };
}

impl<S: SagaStep> AnyStep for WithUndo<S> {
    goes_forward!();

    fn compensate(&self, input: AnyInput, frame: Frame, done: Option<Document>) -> Answer<'_, Evidence> {
        Box::pin(async move {
            let done = match done {
                None => Executed::Unknown,
                Some(stored) => {
                    let opened = frame.sealer.open(&frame.output_of(S::NAME), &stored);
                    Executed::Applied(opened.map_err(|why| {
                        StepError::fatal(format!("the stored output of {} cannot be read: {why}", S::NAME))
                    })?)
                }
            };
            let cx = context(input, frame)?;
            self.0.compensate(&cx, done).await
        })
    }
}

impl<S: ForwardStep> AnyStep for WithoutUndo<S> {
    goes_forward!();

    fn compensate(&self, _: AnyInput, _: Frame, _: Option<Document>) -> Answer<'_, Evidence> {
        Box::pin(async { Err(StepError::fatal(format!("{} has no compensation", S::NAME))) })
    }
}
