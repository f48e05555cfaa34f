//! The crash explorer: your saga, cut at every point, resumed by a fresh worker, judged.
//!
//! ```
//! use probity_saga::testing::explore;
//! # use probity_saga::*;
//! # struct Reserve; struct Charge;
//! # impl SagaStep for Reserve {
//! #     type Input = u64; type Output = u64; const NAME: &'static str = "Reserve";
//! #     async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> { Ok(*cx.input()) }
//! #     async fn compensate(&self, _: &StepContext<u64>, _: Executed<u64>) -> Result<Evidence, StepError> {
//! #         Ok(Evidence::new("released"))
//! #     }
//! # }
//! # impl ForwardStep for Charge {
//! #     type Input = u64; type Output = u64; const NAME: &'static str = "Charge";
//! #     async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> { Ok(*cx.input()) }
//! # }
//! let report = explore(500_u64, || Saga::named("payment").step(Reserve).pivot(Charge).build())?;
//! assert!(report.schedules > 100 && report.compensated > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For every way a step can answer (as it does, refused, its answer lost, its request lost, its undo
//! lost) the saga runs on a memory store in virtual time, and the worker is stopped before and after
//! each store call, each effect and each probe, from its first beat on: dead for ever, asked to leave,
//! or frozen and going on after another worker has finished. The saga is started by `start`, and as by a
//! transaction of the caller's. People ask it to turn back and to pause, from the moment it is there, and
//! let it go on, turn it back, settle its open step and close it where it waits for them. Then the
//! promises are checked. The other side of each step is taken to honour its key: a key once undone is
//! refused.
//!
//! What is left out, because it shows nothing else: a *deed* is a point where something is written or
//! done; between two deeds another worker finds the same. So a second worker is stopped, or a frozen
//! first one goes on beside it, at deeds only (but at every point for one cut in the middle), and not
//! where a message is lost. A worker that leaves dies before and after it gives its sagas back at deeds.
//! People ask at deeds: of the first worker, and of the one that takes over from a first that died in the
//! middle. The first dies, freezes or leaves meanwhile, and they freeze between their look and their
//! decision, where every step answers or the last is refused.

mod gate;
mod gated;
mod judge;
mod local;
mod people;
mod run;
mod schedule;
mod watched;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;

use crate::error::BuildError;
use crate::machine::Status;
use crate::orchestrator::SagaView;
use crate::plan::Saga;
use crate::step::Payload;
use crate::store::{MemoryStore, SagaStore};
use run::{Ran, Time};
use schedule::{Schedule, Seen};

/// What was explored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// How many schedules ran.
    pub schedules: usize,
    /// Those that ended with every step done.
    pub completed: usize,
    /// Those that ended with every effect undone.
    pub compensated: usize,
    /// Those that ended before a person, stuck or paused.
    pub waiting: usize,
    /// Those that a person closed.
    pub aborted: usize,
}

/// A broken promise, with the schedule that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise}, when {schedule}")]
pub struct Broken {
    promise: String,
    schedule: String,
}

/// Why an exploration ended early.
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

/// Explores a saga; see the module. Call it from a plain `#[test]`: it brings its own runtimes.
///
/// # Errors
/// The first broken promise; or a saga that does not build.
pub fn explore<I: Payload + Clone>(
    input: I,
    saga: impl Fn() -> Result<Saga, BuildError>,
) -> Result<Report, Explored> {
    let steps = saga()?.steps.len();
    let mut report = Report::default();
    let one = async |schedule: Schedule| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let store: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
        let ran = runtime.block_on(run::run(store, Time::Virtual, &input, &saga, schedule))?;
        report.add(&schedule, ran)
    };
    // Never pending: each schedule blocks until its runtime has run it.
    schedule::each(steps, one).now_or_never().unwrap_or(Ok(()))?;
    Ok(report)
}

/// Explores a saga on a store of yours, in real time: it is cut at each store call and each effect, and people cancel
/// and pause it at each deed, when every step answers, and when the last is refused. Sagas of types of their own are left
/// in the store.
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

/// As [`explore_on`], and compares your rows with the saga after each schedule, when every worker has ended: the effects
/// of local steps are there exactly if their records are (S-9). The check gets the saga and answers what does not fit;
/// find the rows of a saga by its id, or by the key of a step.
///
/// # Errors
/// As [`explore_on`]; and [`Explored::Broken`] with what the check answered.
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
        let mut ran = run::run(Arc::clone(&store), Time::Real, &input, &saga, schedule).await?;
        if let (None, Some(journal)) = (&ran.broken, &ran.journal) {
            ran.broken = check(journal).await.err();
        }
        report.lock().unwrap_or_else(PoisonError::into_inner).add(&schedule, ran)
    };
    schedule::each_cut(steps, one).await?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Report {
    fn add(&mut self, schedule: &Schedule, ran: Ran) -> Result<Seen, Explored> {
        if let Some(promise) = ran.broken {
            let met = ran.met.join(", then ");
            let schedule =
                if met.is_empty() { schedule.to_string() } else { format!("{schedule} (met {met})") };
            return Err(Broken { promise, schedule }.into());
        }
        self.schedules += 1;
        match ran.status {
            Some(Status::Completed) => self.completed += 1,
            Some(Status::Compensated) => self.compensated += 1,
            Some(Status::Aborted) => self.aborted += 1,
            _ => self.waiting += 1,
        }
        Ok(ran.seen)
    }
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
    fn every_store_call_is_cut_before_it_and_after_it() {
        let saga = || Saga::named("explored").pivot(Pay).build();
        let mut met = BTreeSet::new();
        let one = async |schedule: Schedule| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            let store: Arc<dyn SagaStore> = Arc::new(MemoryStore::new());
            let ran = runtime.block_on(run::run(store, Time::Virtual, &1_u32, &saga, schedule))?;
            assert_eq!(ran.broken, None, "{schedule}");
            met.extend(ran.met);
            Ok(ran.seen)
        };
        schedule::each(1, one).now_or_never().unwrap_or(Ok(())).unwrap();
        // Of the store's methods only `list` and `census` are for nobody but people.
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
                assert!(met.contains(&*format!("{side} {call}")), "never met {side} {call}: {met:?}");
            }
        }
    }
}
