//! Local steps: how the builder takes them, and how their types are hidden.
//!
//! Invariant: a local step has no unknown outcome. Its error means that it had no effect, because its transaction is
//! dropped.

use std::error::Error;
use std::fmt::Display;
use std::marker::PhantomData;
use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::timeout;

use super::erased::{self, Answer, AnyInput, AnyLocal, AnyStep, LocalConnection, decodes};
use super::{AfterPivot, AnyStore, BeforePivot, Erased, NeedsReason, Planned, SagaBuilder};
use crate::policy::StepPolicy;
use crate::record::Document;
use crate::step::context::{Frame, StepContext};
use crate::step::local::{LocalDatabase, LocalForwardStep, LocalStep};
use crate::step::output::{Forward, Undoable};
use crate::step::{Evidence, Payload, Probe, StepError, whole};
use crate::store::rows::{ends_the_session, is_gone};

/// A local step as the builder accepts it: a [`LocalStep`] or a [`LocalForwardStep`]. Sealed.
pub trait LocalKind<I, DB, K>: Sealed<DB, K> + Sized {
    /// The phase of the builder after this step, before a pivot.
    type Next;
    #[doc(hidden)]
    fn erase(self) -> Erased;
}

/// A database on which a saga has its local steps so far, so that local steps on `DB` may join it.
#[diagnostic::on_unimplemented(
    message = "the local steps of one saga are all on one database, and this saga has some on `{Self}`, not `{DB}`",
    note = "effects in two databases cannot commit together: make one of them a `SagaStep`"
)]
pub trait Joins<DB> {}
impl<DB: LocalDatabase> Joins<DB> for AnyStore {}
impl<DB: LocalDatabase> Joins<DB> for DB {}

/// Only local steps are local steps.
pub trait Sealed<DB, K> {}
impl<DB: LocalDatabase, S: LocalStep<DB>> Sealed<DB, Undoable> for S {}
impl<DB: LocalDatabase, S: LocalForwardStep<DB>> Sealed<DB, Forward> for S {}

impl<DB: LocalDatabase, S: LocalStep<DB>> LocalKind<S::Input, DB, Undoable> for S {
    type Next = BeforePivot;
    fn erase(self) -> Erased {
        Erased(Box::new(LocalWithUndo { step: self, database: PhantomData::<fn() -> DB> }), true)
    }
}

impl<DB: LocalDatabase, S: LocalForwardStep<DB>> LocalKind<S::Input, DB, Forward> for S {
    type Next = NeedsReason;
    fn erase(self) -> Erased {
        Erased(Box::new(LocalWithoutUndo { step: self, database: PhantomData::<fn() -> DB> }), false)
    }
}

impl<I: Payload, D> SagaBuilder<I, BeforePivot, D> {
    /// Adds a step whose effect is rows in the store's own database: effect and record commit
    /// together (S-9). A [`LocalForwardStep`] must be followed by
    /// [`no_compensation`](SagaBuilder::no_compensation) with a reason.
    ///
    /// All local steps of a saga are on one database, and only a store in that database runs it.
    pub fn local_step<DB, K, S>(self, step: S) -> SagaBuilder<I, S::Next, DB>
    where
        DB: LocalDatabase,
        S: LocalKind<I, DB, K>,
        D: Joins<DB>,
    {
        let Erased(step, undo) = step.erase();
        self.push(Planned { step, undo, pivot: false, reason: None })
    }

    /// Adds a local step that divides: the pivot commits together with its effect. See
    /// [`pivot`](SagaBuilder::pivot).
    pub fn local_pivot<DB, S>(self, step: S) -> SagaBuilder<I, AfterPivot, DB>
    where
        DB: LocalDatabase,
        S: LocalForwardStep<DB, Input = I>,
        D: Joins<DB>,
    {
        let Erased(step, _) = LocalKind::<I, DB, Forward>::erase(step);
        self.push(Planned { step, undo: false, pivot: true, reason: None })
    }
}

impl<I: Payload, D> SagaBuilder<I, AfterPivot, D> {
    /// Adds a local step that is tried until it succeeds or a person helps; it is never undone.
    pub fn local_step<DB, S>(self, step: S) -> SagaBuilder<I, AfterPivot, DB>
    where
        DB: LocalDatabase,
        S: LocalForwardStep<DB, Input = I>,
        D: Joins<DB>,
    {
        let Erased(step, _) = LocalKind::<I, DB, Forward>::erase(step);
        self.push(Planned { step, undo: false, pivot: false, reason: None })
    }
}

struct LocalWithUndo<S, DB> {
    step: S,
    database: PhantomData<fn() -> DB>,
}

struct LocalWithoutUndo<S, DB> {
    step: S,
    database: PhantomData<fn() -> DB>,
}

fn connection<DB: LocalDatabase>(connection: &mut LocalConnection) -> Result<&mut DB::Connection, StepError> {
    connection
        .downcast_mut()
        .ok_or_else(|| StepError::fatal(format!("the transaction of the store is not one of {}", DB::NAME)))
}

/// Seals an output. The step was rolled back if that fails, so an output that cannot be stored is only a bug.
fn encode<T: Payload>(frame: &Frame, output: &T) -> Result<Document, StepError> {
    let sealed = frame.sealer.seal(&frame.output_of(frame.step), output);
    sealed
        .map_err(|error| StepError::fatal(format!("the output of {} cannot be stored: {error}", frame.step)))
}

/// The time within which a working connection answers a ping.
const PING: Duration = Duration::from_secs(1);

/// Classifies an error of a local step. A dropped transaction has no effect, so an error is a definite failure, unless
/// the database went away under the step: that says nothing about the step.
async fn nothing_happened<DB: LocalDatabase>(error: StepError, tx: &mut LocalConnection) -> StepError {
    let StepError::Unknown(source) = error else { return error };
    let gone = match of_a_database(&*source).filter(|error| is_gone(error)) {
        None => false,
        Some(sqlx::Error::Database(answer)) if !ends_the_session(&**answer) => true,
        // It may be the error of another connection, to another database. A session that was ended answers no ping.
        Some(_) => {
            let ping = async { connection::<DB>(tx).ok()?.ping().await.ok() };
            timeout(PING, ping).await.ok().flatten().is_none()
        }
    };
    if gone { StepError::Unknown(source) } else { StepError::retryable(whole(&*source)) }
}

/// Finds the error of a database by which the error of a step came about.
fn of_a_database<'a>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a sqlx::Error> {
    let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = error.source();
    }
    None
}

fn never<'a, T>(step: impl Display) -> Answer<'a, T> {
    let reason = format!("{step} is local and runs only in a transaction of its store");
    Box::pin(async move { Err(StepError::fatal(reason)) })
}

macro_rules! hidden {
    ($erased:ident is $kind:ident) => {
        impl<DB: LocalDatabase, S: $kind<DB>> AnyStep for $erased<S, DB> {
            fn name(&self) -> &'static str {
                S::NAME
            }

            fn uses(&self) -> &'static [&'static str] {
                S::USES
            }

            fn policy(&self) -> StepPolicy {
                self.step.policy()
            }

            fn check_output(&self, plain: &Document) -> Result<(), String> {
                decodes::<S::Output>(plain)
            }

            fn execute(&self, _: AnyInput, _: Frame) -> Answer<'_, Document> {
                never(S::NAME)
            }

            fn probe(&self, _: AnyInput, _: Frame) -> Answer<'_, Probe<Document>> {
                never(S::NAME)
            }

            fn compensate(&self, _: AnyInput, _: Frame, _: Option<Document>) -> Answer<'_, Evidence> {
                never(S::NAME)
            }

            fn local(&self) -> Option<&dyn AnyLocal> {
                Some(self)
            }
        }
    };
}

hidden!(LocalWithUndo is LocalStep);
hidden!(LocalWithoutUndo is LocalForwardStep);

/// Implements the erased local step, with an undo or without one.
macro_rules! goes_forward {
    () => {
        fn database(&self) -> &'static str {
            DB::NAME
        }

        fn execute<'a>(
            &'a self,
            input: AnyInput,
            frame: Frame,
            tx: &'a mut LocalConnection,
        ) -> Answer<'a, Document> {
            Box::pin(async move {
                let cx: StepContext<S::Input> = erased::context(input, frame)?;
                match self.step.execute(&cx, connection::<DB>(tx)?).await {
                    Ok(output) => encode(&cx.frame, &output),
                    Err(error) => Err(nothing_happened::<DB>(error, tx).await),
                }
            })
        }
    };
}

impl<DB: LocalDatabase, S: LocalStep<DB>> AnyLocal for LocalWithUndo<S, DB> {
    goes_forward!();

    fn compensate<'a>(
        &'a self,
        input: AnyInput,
        frame: Frame,
        done: Document,
        tx: &'a mut LocalConnection,
    ) -> Answer<'a, Evidence> {
        Box::pin(async move {
            let done = frame.sealer.open(&frame.output_of(S::NAME), &done).map_err(|why| {
                StepError::fatal(format!("the stored output of {} cannot be read: {why}", S::NAME))
            })?;
            let cx: StepContext<S::Input> = erased::context(input, frame)?;
            match self.step.compensate(&cx, done, connection::<DB>(tx)?).await {
                Ok(evidence) => Ok(evidence),
                Err(error) => Err(nothing_happened::<DB>(error, tx).await),
            }
        })
    }
}

impl<DB: LocalDatabase, S: LocalForwardStep<DB>> AnyLocal for LocalWithoutUndo<S, DB> {
    goes_forward!();

    fn compensate<'a>(
        &'a self,
        _: AnyInput,
        _: Frame,
        _: Document,
        _: &'a mut LocalConnection,
    ) -> Answer<'a, Evidence> {
        Box::pin(async { Err(StepError::fatal(format!("{} has no compensation", S::NAME))) })
    }
}
