//! A saga as a value: named steps in order, typed while it is built, erased afterwards.
//!
//! Invariant: a step without an undo carries a reason, or stands at or after the pivot; the type
//! of the builder sees to it. Start at [`Saga::named`].

mod erased;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod local;

use std::any::{TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use crate::step::local::LocalDatabase;
#[cfg(feature = "testing")]
pub(crate) use erased::Answer;
#[cfg(feature = "testing")]
pub(crate) use erased::LocalConnection;
pub(crate) use erased::{AnyInput, AnyLocal, AnyStep};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use local::{Joins, LocalKind};

use crate::codec::{Place, Sealer};
use crate::core::{Shape, StepShape};
use crate::error::BuildError;
use crate::record::{Definition, Document};
pub use crate::step::Payload;
pub use crate::step::output::StepOutput;
use crate::step::output::{Forward, Undoable};
use crate::step::{ForwardStep, SagaStep};

/// The database of a saga without local steps: any store can run it.
#[derive(Debug, Clone, Copy)]
pub struct AnyStore;

/// A saga that can be registered with an [`Orchestrator`](crate::Orchestrator). `D` is the database of
/// its local steps: only a store in that database can run it.
pub struct Saga<D = AnyStore> {
    pub(crate) name: Arc<str>,
    pub(crate) version: u32,
    pub(crate) deadline: Option<Duration>,
    pub(crate) shape: Shape,
    pub(crate) steps: Vec<Box<dyn AnyStep>>,
    pub(crate) definition: Definition,
    pub(crate) input: InputType,
    database: PhantomData<fn() -> D>,
}

/// The type of a saga's input, and the function that decodes it.
#[derive(Clone, Copy)]
pub(crate) struct InputType {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
    pub(crate) decode: fn(&Sealer, &Place<'_>, &Document) -> Result<AnyInput, String>,
}

impl Saga<AnyStore> {
    /// Starts the definition of a saga. The name is stored as `business_type`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use probity_saga::*;
    /// # struct Reserve; struct Pay; struct Notify;
    /// # impl SagaStep for Reserve {
    /// #     type Input = u32; type Output = (); const NAME: &'static str = "Reserve";
    /// #     async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> { Ok(()) }
    /// #     async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
    /// #         Ok(Evidence::new("released"))
    /// #     }
    /// # }
    /// # impl ForwardStep for Pay {
    /// #     type Input = u32; type Output = (); const NAME: &'static str = "Pay";
    /// #     async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> { Ok(()) }
    /// # }
    /// # impl ForwardStep for Notify {
    /// #     type Input = u32; type Output = (); const NAME: &'static str = "Notify";
    /// #     async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> { Ok(()) }
    /// # }
    /// let saga = Saga::named("checkout")
    ///     .step(Reserve)          // has an undo
    ///     .pivot(Pay)             // once it succeeded, there is no way back
    ///     .step(Notify)           // so this one needs no undo
    ///     .build()?;
    /// # Ok::<(), BuildError>(())
    /// ```
    ///
    /// A step without an undo before the pivot does not build without a reason:
    ///
    /// ```compile_fail,E0599
    /// # use probity_saga::*;
    /// # struct Notify;
    /// # impl ForwardStep for Notify {
    /// #     type Input = u32; type Output = (); const NAME: &'static str = "Notify";
    /// #     async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> { Ok(()) }
    /// # }
    /// let saga = Saga::named("checkout").step(Notify).build();
    /// ```
    pub fn named<I: Payload>(name: impl Into<String>) -> SagaBuilder<I, BeforePivot> {
        SagaBuilder {
            name: name.into(),
            version: 1,
            deadline: None,
            steps: Vec::new(),
            fault: None,
            phase: PhantomData,
        }
    }
}

impl<D> Saga<D> {
    /// Without the type that says where it runs; what runs it has been checked, or checks it.
    pub(crate) fn unchecked(self) -> Saga {
        let Self { name, version, deadline, shape, steps, definition, input, database: _ } = self;
        Saga { name, version, deadline, shape, steps, definition, input, database: PhantomData }
    }

    /// The name it was built with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fingerprint of its steps: stored with every saga, so that no other definition runs it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.definition.fingerprint
    }
}

impl<D> fmt::Debug for Saga<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("steps", &self.shape.steps)
            .finish_non_exhaustive()
    }
}

/// Builder phase: steps need an undo or a reason.
#[derive(Debug)]
pub struct BeforePivot;

/// Builder phase: the last step has no undo; say why.
#[derive(Debug)]
pub struct NeedsReason;

/// Builder phase: forward only.
#[derive(Debug)]
pub struct AfterPivot;

/// Collects the steps of a saga. See [`Saga::named`].
#[must_use = "a saga exists only after `build`"]
pub struct SagaBuilder<I, P, D = AnyStore> {
    name: String,
    version: u32,
    deadline: Option<Duration>,
    steps: Vec<Planned>,
    fault: Option<BuildError>,
    phase: PhantomData<fn(I) -> (P, D)>,
}

struct Planned {
    step: Box<dyn AnyStep>,
    undo: bool,
    pivot: bool,
    reason: Option<String>,
}

/// A step as the builder accepts it: a [`SagaStep`] or a [`ForwardStep`]. Sealed.
pub trait StepKind<I, K>: erased::Sealed<K> + Sized {
    /// The phase of the builder after this step, before a pivot.
    type Next;
    #[doc(hidden)]
    fn erase(self) -> Erased;
}

/// A step whose types are hidden. Only the builder makes and takes it.
pub struct Erased(Box<dyn AnyStep>, bool);

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Erased").field(&self.0.name()).finish()
    }
}

impl<S: SagaStep> StepKind<S::Input, Undoable> for S {
    type Next = BeforePivot;
    fn erase(self) -> Erased {
        Erased(Box::new(erased::WithUndo(self)), true)
    }
}

impl<S: ForwardStep> StepKind<S::Input, Forward> for S {
    type Next = NeedsReason;
    fn erase(self) -> Erased {
        Erased(Box::new(erased::WithoutUndo(self)), false)
    }
}

impl<I: Payload, D> SagaBuilder<I, BeforePivot, D> {
    /// Adds a step. A [`ForwardStep`] must be followed by
    /// [`no_compensation`](SagaBuilder::no_compensation) with a reason.
    pub fn step<K, S: StepKind<I, K>>(self, step: S) -> SagaBuilder<I, S::Next, D> {
        let Erased(step, undo) = step.erase();
        self.push(Planned { step, undo, pivot: false, reason: None })
    }

    /// Adds the step that divides: before it the saga can turn back, once it succeeded it only
    /// goes forward. It is never undone, so a step with an undo is refused by its type.
    pub fn pivot<S: ForwardStep<Input = I>>(self, step: S) -> SagaBuilder<I, AfterPivot, D> {
        let Erased(step, _) = step.erase();
        self.push(Planned { step, undo: false, pivot: true, reason: None })
    }

    /// Declares that the step added last need not be undone, and why.
    pub fn no_compensation(self, reason: impl Into<String>) -> Self {
        self.explain(reason.into())
    }

    /// Finishes the definition.
    ///
    /// # Errors
    /// [`BuildError`] names what cannot work: no steps, two steps of one name, an unusable name, a
    /// step that uses the output of one that does not come before it.
    pub fn build(self) -> Result<Saga<D>, BuildError> {
        self.finish()
    }
}

impl<I: Payload, D> SagaBuilder<I, NeedsReason, D> {
    /// Says why the step added last need not be undone; the saga can then go on.
    pub fn no_compensation(self, reason: impl Into<String>) -> SagaBuilder<I, BeforePivot, D> {
        self.explain(reason.into())
    }
}

impl<I: Payload, D> SagaBuilder<I, AfterPivot, D> {
    /// Adds a step that is tried until it succeeds or a person helps; it is never undone.
    pub fn step<S: ForwardStep<Input = I>>(self, step: S) -> Self {
        let Erased(step, _) = step.erase();
        self.push(Planned { step, undo: false, pivot: false, reason: None })
    }

    /// Finishes the definition.
    ///
    /// # Errors
    /// The errors of [`build`](SagaBuilder::build) before a pivot.
    pub fn build(self) -> Result<Saga<D>, BuildError> {
        self.finish()
    }
}

impl<I: Payload, P, D> SagaBuilder<I, P, D> {
    /// The version of this definition, 1 unless set. Raise it when the steps change, and register
    /// the old definition beside the new one until no saga of the old one is open.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Sets how long after its start the saga may still go forward (for ever unless set), by the store's
    /// clock. When it has passed before the pivot, no step is executed any more: the attempt that
    /// runs is awaited, what may have happened is asked about, and the saga turns back. Past the
    /// pivot it changes nothing, but it shows: [`Orchestrator::overdue`](crate::Orchestrator::overdue)
    /// and `probity_saga_overdue_total`.
    ///
    /// Not a part of the fingerprint: the deadline of the definition that runs it counts, also for
    /// sagas that were started before.
    pub fn deadline(mut self, limit: Duration) -> Self {
        if limit.is_zero() {
            self.fault = Some(BuildError::BadSetting("a deadline must be longer than nothing"));
        }
        self.deadline = Some(limit);
        self
    }

    fn push<Q, E>(mut self, planned: Planned) -> SagaBuilder<I, Q, E> {
        self.steps.push(planned);
        self.into_phase()
    }

    fn explain<Q>(mut self, reason: String) -> SagaBuilder<I, Q, D> {
        if let Some(last) = self.steps.last_mut() {
            if reason.trim().is_empty() {
                self.fault = Some(BuildError::NoReason(last.step.name().into()));
            }
            (last.undo, last.reason) = (false, Some(reason));
        }
        self.into_phase()
    }

    fn into_phase<Q, E>(self) -> SagaBuilder<I, Q, E> {
        let Self { name, version, deadline, steps, fault, phase: _ } = self;
        SagaBuilder { name, version, deadline, steps, fault, phase: PhantomData }
    }

    fn finish(self) -> Result<Saga<D>, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.steps.is_empty() {
            return Err(BuildError::Empty(self.name));
        }
        let names: Vec<&'static str> = self.steps.iter().map(|planned| planned.step.name()).collect();
        if let Some(bad) =
            std::iter::once(self.name.as_str()).chain(names.clone()).find(|name| !is_usable(name))
        {
            return Err(BuildError::BadName(bad.into()));
        }
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                return Err(BuildError::DuplicateStep { saga: self.name, step: (*name).into() });
            }
        }
        for (at, planned) in self.steps.iter().enumerate() {
            if let Some(used) = planned.step.uses().iter().find(|used| !names[..at].contains(used)) {
                return Err(BuildError::NoOutputYet { step: names[at].into(), uses: (*used).into() });
            }
        }
        let shape = Shape { steps: self.steps.iter().map(Planned::shape).collect() };
        let definition = definition(&self.name, self.version, &self.steps);
        Ok(Saga {
            name: self.name.into(),
            version: self.version,
            deadline: self.deadline,
            shape,
            definition,
            steps: self.steps.into_iter().map(|planned| planned.step).collect(),
            input: InputType {
                id: TypeId::of::<I>(),
                name: type_name::<I>(),
                decode: |sealer, place, stored| {
                    sealer.open::<I>(place, stored).map(|input| Arc::new(input) as AnyInput)
                },
            },
            database: PhantomData,
        })
    }
}

impl Planned {
    fn shape(&self) -> StepShape {
        let policy = self.step.policy();
        StepShape {
            name: self.step.name(),
            undo: self.undo,
            pivot: self.pivot,
            local: self.step.local().is_some(),
            holds_undo: policy.holds_undo,
            retries_max: policy.retries.times(),
        }
    }

    fn kind(&self) -> &'static str {
        match (self.step.local().is_some(), self.pivot, self.undo) {
            (false, true, _) => "pivot",
            (false, false, true) => "undo",
            (false, false, false) => "forward",
            (true, true, _) => "local_pivot",
            (true, false, true) => "local_undo",
            (true, false, false) => "local_forward",
        }
    }
}

impl<I, P, D> fmt::Debug for SagaBuilder<I, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Names become parts of keys, and keys become header values.
pub(crate) fn is_usable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn definition(saga: &str, version: u32, steps: &[Planned]) -> Definition {
    let listed: Vec<_> = steps
        .iter()
        .map(|planned| {
            serde_json::json!({
                "name": planned.step.name(),
                "kind": planned.kind(),
                "no_compensation": planned.reason,
            })
        })
        .collect();
    let mut hasher = blake3::Hasher::new();
    hasher.update(saga.as_bytes()).update(&[0]).update(&version.to_be_bytes());
    for planned in steps {
        hasher.update(&[0]).update(planned.step.name().as_bytes());
        hasher.update(&[0]).update(planned.kind().as_bytes());
    }
    Definition {
        fingerprint: hasher.finalize().to_hex()[..32].into(),
        saga_type: saga.into(),
        version,
        steps: serde_json::Value::Array(listed).to_string(),
    }
}

#[cfg(test)]
mod tests;
