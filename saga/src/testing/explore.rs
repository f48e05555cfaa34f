//! The crash explorer: a saga, cut at every point, resumed by a fresh worker, judged. [`explore()`] describes it and
//! lists the combinations that it leaves out.

mod calls;
mod fate;
mod gate;
mod gated;
mod instrumented_step;
mod judge;
mod local;
mod people;
mod promise;
mod report;
mod run;
mod schedule;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;

use crate::definition::Saga;
use crate::error::BuildError;
use crate::orchestrator::SagaView;
use crate::step::Payload;
use crate::store::{MemoryStore, SagaStore};
pub use calls::{Calls, Refused};
pub use report::{Report, Waiting};
use run::Time;
use schedule::Schedule;

/// A broken promise, with the schedule that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise}, when {schedule}")]
pub struct Broken {
    promise: String,
    schedule: String,
}

/// The reason for which an exploration ended early.
#[derive(Debug, thiserror::Error)]
pub enum Explored {
    /// A promise does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The saga does not build, or its store cannot be used.
    #[error(transparent)]
    Unbuildable(#[from] BuildError),
    /// There is no runtime to explore in.
    #[error("no runtime: {0}")]
    Unexplorable(#[from] std::io::Error),
}

/// Explores a saga: cut at every point, resumed by a fresh worker, judged. Call it from a plain `#[test]`: it brings its
/// own runtimes.
///
/// For every way a step can answer (as it does, refused, its answer lost, its request lost, its undo lost or refused) the
/// saga runs on a memory store in virtual time, and the worker is stopped before and after each store call, each effect
/// and each probe, from its first beat on: dead for ever, asked to leave, or frozen and going on after another worker has
/// finished. The saga is started by `start`, and as by a transaction of the caller's. People ask it to turn back and to
/// pause, from the moment it is there, and let it go on, turn it back, settle its open step and close it where it waits
/// for them. Then the promises are checked.
///
/// # Limits
///
/// * It judges by what the steps *answer*. A step that makes a new provider key for each attempt, an undo that says
///   "refunded" and does nothing, and a step that forgets its first effect when its second fails look right from there:
///   use [`explore_with`], which looks at your fakes.
/// * The other side of each step is taken to honour its key: a key once undone is refused, and so is a call that comes
///   after a probe ruled it out. A provider that charges twice for one key is found only by a test against the
///   provider.
/// * A *write point* is a point where something is written or done; between two write points another worker finds the
///   same. Therefore a second worker is stopped, or a frozen first one goes on beside it, at write points only (but at
///   every point for one cut in the middle), and not where a message is lost. A worker that leaves dies before and
///   after it gives its sagas back at write points.
/// * People ask at write points: of the first worker, and of the one that takes over from a first that died in the
///   middle. The first dies, freezes or leaves at that time, and they freeze between their look and their decision,
///   where every step answers or the last is refused.
/// * An undo that is refused, and a call that does not arrive, are not combined with a worker that ends.
/// * Three or more lost messages, databases that fail, and real time are not explored: [`explore_on`] runs on a database.
///
/// # Examples
///
/// ```
/// use probity_saga::testing::explore;
/// # use probity_saga::*;
/// # struct Reserve; struct Charge;
/// # impl SagaStep for Reserve {
/// #     type Input = u64; type Output = u64; const NAME: &'static str = "Reserve";
/// #     async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> { Ok(*cx.input()) }
/// #     async fn compensate(&self, _: &StepContext<u64>, _: Executed<u64>) -> Result<Evidence, StepError> {
/// #         Ok(Evidence::new("released"))
/// #     }
/// # }
/// # impl ForwardStep for Charge {
/// #     type Input = u64; type Output = u64; const NAME: &'static str = "Charge";
/// #     async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> { Ok(*cx.input()) }
/// # }
/// let report = explore(500_u64, || Saga::named("payment").step(Reserve).pivot(Charge).build())?;
/// assert!(report.schedules > 100 && report.compensated > 0, "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first broken promise; or a saga that does not build.
pub fn explore<I: Payload + Clone>(
    input: I,
    saga: impl Fn() -> Result<Saga, BuildError>,
) -> Result<Report, Explored> {
    explore_with(input, |_: &Calls| (), |()| saga(), |(), _: &SagaView| Ok(()))
}

/// Explores a saga together with the fakes that its steps call: as [`explore()`], and after each schedule, when every
/// worker has ended, `check` compares the fakes with what the saga says of itself.
///
/// `fakes` makes the fakes of one schedule; all its workers share them. A fake that asks its [`Calls`] at the begin of
/// each call is refused one of them in turn: once, and for as long as the saga runs. A step with two effects, of which
/// the second fails "without an effect", then leaves the first behind, and the check finds it.
///
/// Let the fakes do what the real ones promise: honour a key, refuse it once it is undone. The check is not asked where a
/// person settled a step: what that person did by hand is not in the fakes.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use probity_saga::testing::{Calls, explore_with};
/// # use probity_saga::*;
///
/// struct Channel { calls: Calls, charged: AtomicBool }
///
/// struct Charge(Arc<Channel>);
/// impl SagaStep for Charge {
/// #   type Input = u64; type Output = (); const NAME: &'static str = "Charge";
///     // ...
///     async fn execute(&self, _: &StepContext<u64>) -> Result<(), StepError> {
///         self.0.calls.arrive("charge").map_err(|refused| StepError::retryable(refused.to_string()))?;
///         self.0.charged.store(true, Ordering::SeqCst);
///         Ok(())
///     }
///     async fn compensate(&self, _: &StepContext<u64>, _: Executed<()>) -> Result<Evidence, StepError> {
///         self.0.calls.arrive("refund")?;
///         self.0.charged.store(false, Ordering::SeqCst);
///         Ok(Evidence::new("refund-1"))
///     }
/// }
///
/// let report = explore_with(
///     500_u64,
///     |calls| Arc::new(Channel { calls: calls.clone(), charged: false.into() }),
///     |channel| Saga::named("payment").step(Charge(channel.clone())).build(),
///     |channel, saga| match (saga.instance.status, channel.charged.load(Ordering::SeqCst)) {
///         (Status::Completed, false) => Err("paid, and not charged".into()),
///         (Status::Compensated, true) => Err("charged, and not paid".into()),
///         _ => Ok(()),
///     },
/// )?;
/// assert!(report.completed > 0, "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The errors of [`explore()`]; and [`Explored::Broken`] with what the check answered.
pub fn explore_with<I: Payload + Clone, F>(
    input: I,
    fakes: impl Fn(&Calls) -> F,
    saga: impl Fn(&F) -> Result<Saga, BuildError>,
    check: impl Fn(&F, &SagaView) -> Result<(), String>,
) -> Result<Report, Explored> {
    let steps = saga(&fakes(&Calls::default()))?.steps.len();
    let mut report = Report::default();
    let one = async |schedule: Schedule| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let store: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
        let calls = Calls::refusing(schedule.refusal);
        let fakes = fakes(&calls);
        let saga = || saga(&fakes);
        let mut ran = runtime.block_on(run::run(store, Time::Virtual, &input, &saga, schedule, &calls))?;
        let by_hand = |saga: &SagaView| saga.steps.iter().any(|row| row.resolved_by.is_some());
        if let (None, Some(journal)) = (&ran.broken, ran.journal.as_ref().filter(|saga| !by_hand(saga))) {
            ran.broken = check(&fakes, journal).err();
        }
        report.add(&schedule, ran)
    };
    // Never pending: each schedule blocks until its runtime has run it.
    schedule::each(steps, one).now_or_never().unwrap_or(Ok(()))?;
    Ok(report)
}

/// Explores a saga on a store of yours, in real time: it is cut at each store call and each effect, and people cancel
/// and pause it at each write point, when every step answers, and when the last is refused. Sagas of types of their own
/// are left in the store.
///
/// # Errors
/// The first broken promise; a saga that does not build, or a store that cannot be used.
pub async fn explore_on<I: Payload + Clone, D>(
    store: Arc<dyn SagaStore>,
    input: I,
    saga: impl Fn() -> Result<Saga<D>, BuildError>,
) -> Result<Report, Explored> {
    explore_rows_on(store, input, saga, async |_: &SagaView| Ok(())).await
}

/// Explores as [`explore_on`] does, and compares your rows with the saga after each schedule, when every worker has
/// ended: the effects of local steps are there exactly if their records are (S-9). The check gets the saga and answers
/// what does not fit; find the rows of a saga by its id, or by the key of a step.
///
/// # Errors
/// The errors of [`explore_on`]; and [`Explored::Broken`] with what the check answered.
pub async fn explore_rows_on<I: Payload + Clone, D>(
    store: Arc<dyn SagaStore>,
    input: I,
    saga: impl Fn() -> Result<Saga<D>, BuildError>,
    check: impl AsyncFn(&SagaView) -> Result<(), String>,
) -> Result<Report, Explored> {
    let saga = || saga().map(Saga::unchecked);
    let steps = saga()?.steps.len();
    let report = Mutex::new(Report::default());
    let one = async |schedule: Schedule| {
        let (store, calls) = (Arc::clone(&store), Calls::default());
        let mut ran = run::run(store, Time::Real, &input, &saga, schedule, &calls).await?;
        if let (None, Some(journal)) = (&ran.broken, &ran.journal) {
            ran.broken = check(journal).await.err();
        }
        report.lock().unwrap_or_else(PoisonError::into_inner).add(&schedule, ran)
    };
    schedule::each_cut(steps, one).await?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::step::{ForwardStep, StepError};
    use crate::{StepContext, StepPolicy};

    struct Pay;
    impl ForwardStep for Pay {
        type Input = u32;
        type Output = ();
        const NAME: &'static str = "Pay";
        async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
            Ok(())
        }
        fn policy(&self) -> StepPolicy {
            StepPolicy::default().not_idempotent()
        }
    }

    #[test]
    fn every_store_call_is_cut_before_and_after() {
        let saga = || Saga::named("explored").pivot(Pay).build();
        let mut reached = BTreeSet::new();
        let one = async |schedule: Schedule| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            let store: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
            let ran = runtime.block_on(run::run(
                store,
                Time::Virtual,
                &1_u32,
                &saga,
                schedule,
                &Calls::default(),
            ))?;
            assert_eq!(ran.broken, None, "{schedule}");
            reached.extend(ran.reached);
            Ok(ran.seen)
        };
        schedule::each(1, one).now_or_never().unwrap_or(Ok(())).unwrap();
        // Of the store's methods only `list` and `open_counts` are for people only.
        for call in [
            "`define`",
            "`beat`",
            "`insert`",
            "`owned`",
            "`claim`",
            "`apply`",
            "`load`",
            "`rested`",
            "`find`",
            "`intervene`",
            "`retire`",
            "a step",
            "a probe",
        ] {
            for side in ["before", "after"] {
                assert!(
                    reached.contains(&*format!("{side} {call}")),
                    "never reached {side} {call}: {reached:?}"
                );
            }
        }
    }
}
