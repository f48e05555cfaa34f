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
//! each store call and each effect: dead for ever, or frozen and going on after another worker has
//! finished. Where no message is lost, at each point of that second worker it is stopped as well, or
//! the first one goes on beside it. Then the promises are checked. The other side of each step is taken to honour its key: a key once undone is refused.

mod gated;
mod judge;
mod watched;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::BuildError;
use crate::machine::Status;
use crate::orchestrator::Orchestrator;
use crate::plan::Saga;
use crate::step::Payload;
use gated::{Gate, GatedStore};
use watched::World;

/// Looks for lost sagas cost real time even in virtual time.
const POLL: Duration = Duration::from_secs(5);

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
}

/// A broken promise, with the schedule that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise}, when {schedule}")]
pub struct Broken {
    promise: String,
    schedule: String,
}

/// How one step answers for the length of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    AsItIs,
    Refused(usize),
    AnswerLost(usize),
    RequestLost(usize),
    /// The last step is refused, and the undo of this one loses its first answer.
    UndoLost(usize),
}

/// One run: what goes wrong, and when.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    fate: Fate,
    first_cut: Option<usize>,
    second_cut: Option<usize>,
    /// The stopped worker goes on: when the second one is at its cut, or after the saga came to rest.
    zombies: bool,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fate {
            Fate::AsItIs => f.write_str("every step answers")?,
            Fate::Refused(at) => write!(f, "step {} is refused", at + 1)?,
            Fate::AnswerLost(at) => write!(f, "the answer of step {} is lost", at + 1)?,
            Fate::RequestLost(at) => write!(f, "the request of step {} is lost", at + 1)?,
            Fate::UndoLost(at) => write!(f, "the undo of step {} loses its answer", at + 1)?,
        }
        if let Some(cut) = self.first_cut {
            write!(f, ", the first worker stops at point {cut}")?;
        }
        match (self.second_cut, self.zombies) {
            (Some(cut), true) => write!(f, " and goes on when the second is at its point {cut}"),
            (Some(cut), false) => write!(f, ", the second worker stops at point {cut}"),
            (None, true) => f.write_str(" and goes on after the end"),
            (None, false) => Ok(()),
        }
    }
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
    for fate in fates(steps) {
        let alone = Schedule { fate, first_cut: None, second_cut: None, zombies: false };
        let points = one(&input, &saga, alone, &mut report)?[0];
        for first in 0..points {
            let frozen = Schedule { first_cut: Some(first), zombies: true, ..alone };
            one(&input, &saga, frozen, &mut report)?;
            let dead = Schedule { first_cut: Some(first), ..alone };
            let again = one(&input, &saga, dead, &mut report)?[1];
            // A lost message and two deaths add time, and no case that each alone does not show.
            let alone_is_enough = matches!(fate, Fate::AnswerLost(_) | Fate::RequestLost(_));
            for second in 0..if alone_is_enough { 0 } else { again } {
                for zombies in [false, true] {
                    let twice = Schedule { second_cut: Some(second), zombies, ..dead };
                    one(&input, &saga, twice, &mut report)?;
                }
            }
        }
    }
    Ok(report)
}

/// Why an exploration ended early.
#[derive(Debug, thiserror::Error)]
pub enum Explored {
    /// A promise does not hold.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The saga does not build.
    #[error(transparent)]
    Unbuildable(#[from] BuildError),
    /// There is no runtime to explore in.
    #[error("no runtime: {0}")]
    Unexplorable(#[from] std::io::Error),
}

fn fates(steps: usize) -> Vec<Fate> {
    let mut fates = vec![Fate::AsItIs];
    for at in 0..steps {
        fates.extend([Fate::Refused(at), Fate::AnswerLost(at), Fate::RequestLost(at)]);
        if at + 1 < steps {
            fates.push(Fate::UndoLost(at));
        }
    }
    fates
}

/// Runs one schedule in a runtime of its own. Answers how many points each worker passed.
fn one<I: Payload + Clone>(
    input: &I,
    saga: &impl Fn() -> Result<Saga, BuildError>,
    schedule: Schedule,
    report: &mut Report,
) -> Result<[usize; 2], Explored> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let (status, broken, points) = runtime.block_on(run(input, saga, schedule))?;
    if let Some(promise) = broken {
        return Err(Broken { promise, schedule: schedule.to_string() }.into());
    }
    report.schedules += 1;
    match status {
        Some(Status::Completed) => report.completed += 1,
        Some(Status::Compensated) => report.compensated += 1,
        _ => report.waiting += 1,
    }
    Ok(points)
}

type Ran = (Option<Status>, Option<String>, [usize; 2]);

async fn run<I: Payload + Clone>(
    input: &I,
    saga: &impl Fn() -> Result<Saga, BuildError>,
    schedule: Schedule,
) -> Result<Ran, BuildError> {
    let shape = saga()?.shape;
    let world = Arc::new(World::new(schedule.fate, shape));
    let mut gates: Vec<Arc<Gate>> = Vec::new();
    let mut frozen = Vec::new();
    for cut in [schedule.first_cut, schedule.second_cut, None] {
        let releases = gates.first().filter(|_| schedule.zombies && cut.is_some()).cloned();
        let gate = Arc::new(Gate::new(cut, releases));
        gates.push(Arc::clone(&gate));
        let watched = watched::watch(saga()?, &world, &gate);
        let name = watched.name().to_owned();
        let store = GatedStore::new(Arc::clone(&world.store), Arc::clone(&gate));
        let worker = Orchestrator::new(store).poll(POLL).register(watched).start().await?;
        let (runner, input) = (worker.clone(), input.clone());
        let running = tokio::spawn(async move { runner.run(&name, "explored", &input).await });
        tokio::select! {
            _ = running => break,
            () = gate.tripped() => {}
            () = tokio::time::sleep(Duration::from_secs(3600)) => break,
        }
        if schedule.zombies {
            frozen.push(worker);
        }
    }
    let rested = world.instance();
    for gate in &gates {
        gate.open();
    }
    if !frozen.is_empty() {
        tokio::time::sleep(Duration::from_secs(200)).await;
    }
    let status = rested.as_ref().map(|instance| instance.status);
    let broken = world.broken_promise().or_else(|| judge::judge(&world, rested.as_ref()));
    let points = [0, 1].map(|at| gates.get(at).map_or(0, |gate: &Arc<Gate>| gate.points()));
    Ok((status, broken, points))
}
