//! The context of a step: its input, the outputs before it, its key. It has no access to the store.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::output::StepOutput;
use super::{Payload, StepError};
use crate::codec::{Place, Sealer};
use crate::record::{Document, SagaId};

/// The view of one attempt of one step.
pub struct StepContext<I> {
    pub(crate) input: Arc<I>,
    pub(crate) frame: Frame,
}

/// The untyped part of a [`StepContext`], built by the engine for each attempt.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) saga_id: SagaId,
    pub(crate) saga_type: Arc<str>,
    pub(crate) business_id: Arc<str>,
    pub(crate) step: &'static str,
    pub(crate) attempt: u32,
    /// The time after which no caller waits for this attempt.
    pub(crate) until: Instant,
    pub(crate) operation: Operation,
    /// Made when it is asked for.
    pub(crate) key: OnceLock<String>,
    /// In the order of the steps.
    pub(crate) outputs: Arc<[(&'static str, Document)]>,
    pub(crate) uses: Uses,
    pub(crate) sealer: Sealer,
    pub(crate) effects: Effects,
}

/// The effects that a step stated in one attempt. Every copy shows the same.
#[derive(Clone, Default)]
pub(crate) struct Effects(Arc<Mutex<Vec<String>>>);

impl Effects {
    fn add(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Gives the effects that the step stated; `None` if it stated none.
    pub(crate) fn stated(&self) -> Option<String> {
        let effects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!effects.is_empty()).then(|| effects.join(", "))
    }
}

/// Which outputs a step said it reads. For any other it was not checked that it can be there.
#[derive(Clone)]
pub(crate) struct Uses {
    pub(crate) declared: &'static [&'static str],
    /// The place where the explorer hears of any other, in every build.
    pub(crate) told: Option<Arc<OnceLock<String>>>,
}

impl Frame {
    fn key(&self) -> &str {
        self.key.get_or_init(|| key(self.saga_id, self.step, self.operation))
    }

    /// Names the place of the output of a step of this saga.
    pub(crate) fn output_of<'a>(&'a self, step: &'a str) -> Place<'a> {
        Place { saga_type: &self.saga_type, saga: self.saga_id, output_of: Some(step) }
    }
}

/// Which side of a step a key belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Execute,
    Compensate,
}

/// The key of one operation of one step: the same for every attempt, on every worker, for ever.
pub(crate) fn key(saga: SagaId, step: &str, operation: Operation) -> String {
    let side = match operation {
        Operation::Execute => "do",
        Operation::Compensate => "undo",
    };
    format!("{saga}:{step}:{side}")
}

impl<I> StepContext<I> {
    /// Answers the input of the saga.
    #[must_use]
    pub fn input(&self) -> &I {
        &self.input
    }

    /// The key to pass on to the system that has the effect. Stable over attempts, crashes and workers;
    /// `execute` (with its `probe`) and `compensate` have different keys.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        self.frame.key()
    }

    /// The key that `execute` of this step used: `compensate` names with it what is to be undone.
    #[must_use]
    pub fn execute_key(&self) -> String {
        key(self.frame.saga_id, self.frame.step, Operation::Execute)
    }

    /// The number of this attempt, from 1. After a crash the count may start again.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.frame.attempt
    }

    /// Tells how long the answer of this attempt is still waited for; after that it counts as unknown. Give
    /// it to the client of the other side as its time limit.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.frame.until.saturating_duration_since(Instant::now())
    }

    /// States that something has happened in the world, as soon as the other side has acknowledged it: call it after
    /// each effect that is not the last thing the step does. `what` is shown to operators beside the error; name a
    /// reference, no payload.
    ///
    /// From then on a failure of this attempt is never clean, whatever the step says: a [`StepError::Rejected`] or
    /// [`StepError::Retryable`] speaks of the call that was refused, and the step has had an effect. A refusal turns the
    /// saga back and this step is undone as well; a retryable error counts as unknown, for later attempts too, until
    /// [`probe`](crate::SagaStep::probe) answers [`NotApplied`](crate::Probe::NotApplied). Without it, a step that charges and
    /// then finds the next service away would end as "no effect", and its charge would never be undone (S-12).
    ///
    /// A step with one effect needs none of this, which is the better form: split the step if you can. A local step has
    /// its effects in its transaction; one that states an effect and does not commit pauses its saga. If the worker dies
    /// or loses the saga before that is known the statement is lost, so give an effect in another system a step of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// # use probity_saga::{StepContext, StepError};
    /// # struct Peer;
    /// # impl Peer { async fn call(&self, _: &str) -> Result<String, std::io::Error> { Ok(String::new()) } }
    /// async fn charge_and_pay(cx: &StepContext<u64>, channel: Peer, orders: Peer) -> Result<String, StepError> {
    ///     let charge = channel.call(cx.idempotency_key()).await?;
    ///     cx.effect_acknowledged(format!("charge {charge}"));
    ///     let paid = orders.call(&format!("{}-order", cx.idempotency_key())).await;
    ///     // Said without the line above, this would be a lie: the money was taken.
    ///     paid.map_err(|_| StepError::retryable("no connection to the orders"))?;
    ///     Ok(charge)
    /// }
    /// # let _ = charge_and_pay;
    /// ```
    pub fn effect_acknowledged(&self, what: impl Into<String>) {
        self.frame.effects.add(what.into());
    }

    /// The business id the saga was started under, for example the payment number.
    #[must_use]
    pub fn business_id(&self) -> &str {
        &self.frame.business_id
    }

    /// The id of this saga.
    #[must_use]
    pub fn saga_id(&self) -> SagaId {
        self.frame.saga_id
    }

    /// The type of this saga, as given to `Saga::named`.
    #[must_use]
    pub fn saga_type(&self) -> &str {
        &self.frame.saga_type
    }

    /// The output of an earlier step of any kind, which is listed in [`USES`](crate::SagaStep::USES): a saga without that step before
    /// this one does not build. The second parameter is the kind of the step; write `_`.
    ///
    /// # Errors
    /// [`StepError::Fatal`] if that step is not part of this saga, stands later, or its stored
    /// output cannot be read: the saga is paused for a person, nothing is undone. The same, with debug assertions, if it
    /// is not listed; `testing::explore` finds that in every build.
    ///
    /// # Examples
    ///
    /// ```
    /// # use probity_saga::*;
    /// # struct ReserveStock;
    /// # impl SagaStep for ReserveStock {
    /// #     type Input = u32; type Output = String; const NAME: &'static str = "ReserveStock";
    /// #     async fn execute(&self, _: &StepContext<u32>) -> Result<String, StepError> { Ok(String::new()) }
    /// #     async fn compensate(&self, _: &StepContext<u32>, _: Executed<String>) -> Result<Evidence, StepError> {
    /// #         Ok(Evidence::new("released"))
    /// #     }
    /// # }
    /// struct Ship;
    ///
    /// impl ForwardStep for Ship {
    ///     type Input = u32;
    ///     type Output = String;
    ///     const NAME: &'static str = "Ship";
    ///     const USES: &'static [&'static str] = &[ReserveStock::NAME];
    ///
    ///     async fn execute(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
    ///         let reservation = cx.output::<ReserveStock, _>()?;
    ///         Ok(format!("parcel of {reservation}"))
    ///     }
    /// }
    /// ```
    pub fn output<S: StepOutput<K>, K>(&self) -> Result<S::Value, StepError> {
        self.output_named(S::STEP)
    }

    pub(crate) fn output_named<T: Payload>(&self, name: &str) -> Result<T, StepError> {
        self.check_listed(name)?;
        let found = self.frame.outputs.iter().find(|(step, _)| *step == name);
        let (_, stored) = found.ok_or_else(|| {
            StepError::fatal(format!(
                "step {} asked for the output of {name}, which has none yet",
                self.frame.step
            ))
        })?;
        self.frame
            .sealer
            .open(&self.frame.output_of(name), stored)
            .map_err(|why| StepError::fatal(format!("the stored output of {name} cannot be read: {why}")))
    }

    /// A build without debug assertions gives what is there: in production it is better than a payment that stops.
    fn check_listed(&self, name: &str) -> Result<(), StepError> {
        let Uses { declared, told } = &self.frame.uses;
        if declared.contains(&name) || (told.is_none() && !cfg!(debug_assertions)) {
            return Ok(());
        }
        let step = self.frame.step;
        let reason = format!("step {step} reads the output of {name} and does not list it in `USES`");
        if let Some(told) = told {
            let _ = told.set(reason.clone());
        }
        Err(StepError::fatal(reason))
    }
}

impl<I> fmt::Debug for StepContext<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("saga", &self.frame.saga_id)
            .field("step", &self.frame.step)
            .field("attempt", &self.frame.attempt)
            .finish_non_exhaustive()
    }
}
