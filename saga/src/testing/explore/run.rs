//! One schedule: up to three workers on one store, one after the other, with zombies and people beside them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::gate::{At, Gate};
use super::gated::GatedStore;
use super::instrumented_step::{self, World};
use super::people::{Help, OperatorActor};
use super::schedule::{Cut, Passed, Schedule, Seen};
use super::{Calls, Explored, judge};
use crate::definition::Saga;
use crate::error::BuildError;
use crate::orchestrator::Orchestrator;
use crate::record::{Journal, SagaId, Worker};
use crate::status::Status;
use crate::step::Payload;
use crate::store::SagaStore;

/// In virtual time a lease runs out by waiting. In real time it is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Virtual,
    Real,
}

impl Time {
    /// In virtual time each poll costs more than the time that it waits. Yet one poll for lost sagas, and one for the ends of
    /// sagas of other workers, happen before a lease ends.
    fn lease_and_poll(self) -> (Duration, Duration) {
        match self {
            Self::Virtual => (Duration::from_secs(6), Duration::from_secs(4)),
            Self::Real => (Duration::from_secs(60), Duration::from_millis(50)),
        }
    }

    /// Returns a time that is longer than any working schedule takes.
    fn patience(self) -> Duration {
        match self {
            Self::Virtual => Duration::from_secs(3600),
            Self::Real => Duration::from_secs(60),
        }
    }
}

/// The end of a schedule.
pub(super) struct Ran {
    pub(super) status: Option<Status>,
    pub(super) broken: Option<String>,
    pub(super) seen: Seen,
    /// The calls at which the workers were reached, and then the person who asked.
    pub(super) reached: Vec<&'static str>,
    pub(super) journal: Option<Journal>,
}

/// A worker of a schedule.
struct Life {
    gate: Arc<Gate>,
    /// The orchestrator, once it has started.
    worker: Arc<OnceLock<Orchestrator>>,
    running: JoinHandle<Result<(), BuildError>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Life {
    fn begin<I: Payload + Clone>(
        world: &Arc<World>,
        gate: Arc<Gate>,
        time: Time,
        input: &I,
        saga: Saga,
        by_transaction: bool,
    ) -> Self {
        let saga = instrumented_step::instrument(saga, world, &gate);
        let store = GatedStore::new(world, &gate);
        let (lease, poll) = time.lease_and_poll();
        let builder = Orchestrator::new(store).lease(lease).poll(poll).register(saga);
        let (input, name) = (input.clone(), world.name.clone());
        let worker = Arc::new(OnceLock::new());
        let known = Arc::clone(&worker);
        let running = tokio::spawn(async move {
            let worker = builder.start().await?;
            let _ = known.set(worker.clone());
            // The judge looks at the store, not at what a caller heard.
            if by_transaction {
                if let Ok(started) = worker.start_unattended(&name, "explored", &input).await {
                    let _ = worker.wait(&started).await;
                }
            } else {
                let _ = worker.run(&name, "explored", &input).await;
            }
            Ok(())
        });
        Self { gate, worker, running }
    }

    /// False if the saga came to rest before.
    async fn until_cut(&mut self, time: Time) -> Result<bool, Explored> {
        tokio::select! {
            biased;
            () = self.gate.at_its_cut() => Ok(true),
            ended = &mut self.running => match ended {
                Ok(Err(error)) => Err(error.into()),
                _ => Ok(false),
            },
            () = sleep(time.patience()) => Ok(false),
        }
    }

    async fn until_end(&mut self, time: Time) {
        let _ = timeout(time.patience(), &mut self.running).await;
    }

    fn is_idle(&self) -> bool {
        self.worker.get().is_none_or(Orchestrator::is_idle)
    }

    /// Lets the lease run out, for others and for the worker itself.
    async fn loses_its_lease(&self, world: &World) -> Result<(), Explored> {
        if let Some(id) = self.gate.worker() {
            let dead = Worker { id, lease: Duration::ZERO, pid: 0 };
            let _ = world.store.heartbeat(&dead).await.map_err(BuildError::from)?;
        }
        if let Some(worker) = self.worker.get() {
            worker.forget_lease();
        }
        Ok(())
    }

    /// Asked to leave. False if it died over it.
    async fn leaves(&self) -> bool {
        let Some(worker) = self.worker.get() else {
            self.running.abort();
            return false;
        };
        tokio::select! {
            // Other workers take the sagas that it could not release when its lease ends.
            _ = worker.drain() => true,
            () = self.gate.stopped() => false,
        }
    }
}

pub(super) async fn run<I: Payload + Clone>(
    store: Arc<dyn SagaStore>,
    time: Time,
    input: &I,
    saga: &impl Fn() -> Result<Saga, BuildError>,
    schedule: Schedule,
    calls: &Calls,
) -> Result<Ran, Explored> {
    // A type of its own, so that the workers of another schedule leave it alone.
    let name = format!("explored-{}", SagaId::generate());
    let world = Arc::new(World::new(store, &name, schedule.fate, saga()?.shape));
    let operator =
        Arc::new(schedule.operator.map_or_else(Gate::open_to_all, |at| Gate::stopping_at(At::Point(at))));
    let (mut lives, mut asking): (Vec<Life>, Option<JoinHandle<()>>) = (Vec::new(), None);
    for turn in 0..3 {
        let gate = Arc::new(gate(turn, &schedule, lives.first().map(|life| &life.gate)));
        let mut life = Life::begin(&world, gate, time, input, saga()?, schedule.by_transaction);
        let mut cut = life.until_cut(time).await?;
        let asked = turn == usize::from(schedule.of_second);
        if let (true, true, Some(ask)) = (cut, asked, schedule.ask) {
            let actor = OperatorActor::new(&world, &operator, saga()?);
            let mut task = tokio::spawn(async move { actor.ask(ask).await });
            tokio::select! {
                _ = &mut task => {}
                () = operator.stopped() => asking = Some(task),
            }
        }
        let goes_on = schedule.of_second || matches!(schedule.first, Some((_, Cut::GoesOn)));
        if cut && asked && goes_on {
            life.gate.open();
            life.until_end(time).await;
            cut = false;
        } else if cut {
            stop(&world, &life, time, turn, &schedule).await?;
        }
        lives.push(life);
        if !cut {
            break;
        }
    }
    if schedule.ask.is_some() {
        // A request to a saga at rest is seen by the next poll of a worker.
        until_rested(&world, time).await;
    }
    // The saga has come to rest without its peers; a person who helps it finds them back.
    let called = calls.count();
    calls.mended();
    if let Some(help) = schedule.help {
        let actor = OperatorActor::new(&world, &Arc::new(Gate::open_to_all()), saga()?);
        // A refused kind of help is not the end of this saga.
        if actor.help(help).await || actor.help(Help::GoOn).await {
            until_rested(&world, time).await;
        }
    }
    let mut rested = world.journal().await.map(|journal| journal.instance);
    operator.open();
    if !end(&mut lives, &mut asking, time, &schedule).await {
        world.breaks("S-7: a worker holds on to a saga that came to rest".into());
    }
    // A late decision about a waiting saga counts as any other.
    let decided = asking.is_some() && world.promised().is_some();
    if decided && rested.as_ref().is_some_and(|instance| !instance.status.is_terminal()) {
        until_rested(&world, time).await;
        rested = world.journal().await.map(|journal| journal.instance);
    }
    let now = world.journal().await;
    let broken = world.broken_promise().or_else(|| judge::judge(&world, rested.as_ref(), now.as_ref()));
    let status = rested.map(|instance| instance.status);
    let [first, second] = [0, 1].map(|at| lives.get(at).map(|life| passed(&life.gate)).unwrap_or_default());
    let waits = matches!(status, Some(Status::Stuck | Status::Paused));
    let seen = Seen { first, second, operator: operator.points(), waits, calls: called };
    let reached =
        lives.iter().map(|life| &life.gate).chain([&operator]).flat_map(|gate| gate.reached()).collect();
    Ok(Ran { status, broken, seen, reached, journal: now })
}

fn passed(gate: &Gate) -> Passed {
    Passed { points: gate.points(), write_points: gate.write_points() }
}

fn gate(turn: usize, schedule: &Schedule, first: Option<&Arc<Gate>>) -> Gate {
    match (turn, schedule.first, schedule.second) {
        (0, Some((point, Cut::GoesOn)), _) => Gate::waiting_at(At::Point(point)),
        (0, Some((point, Cut::Leaves(stops))), _) => Gate::leaving_at(At::Point(point), stops),
        (0, Some((point, _)), _) => Gate::stopping_at(At::Point(point)),
        (1, Some((_, Cut::Freezes)), Some(at)) => match first {
            Some(first) => Gate::releasing_at(at, Arc::clone(first)),
            None => Gate::open_to_all(),
        },
        (1, _, Some(at)) if schedule.of_second => Gate::waiting_at(at),
        (1, _, Some(at)) => Gate::stopping_at(at),
        _ => Gate::open_to_all(),
    }
}

/// Stops a worker at its cut, as the schedule says.
async fn stop(
    world: &World,
    life: &Life,
    time: Time,
    turn: usize,
    schedule: &Schedule,
) -> Result<(), Explored> {
    match schedule.first {
        Some((_, Cut::Leaves(_))) if turn == 0 && life.leaves().await => Ok(()),
        Some((_, Cut::Freezes)) if time == Time::Virtual => Ok(()),
        _ => life.loses_its_lease(world).await,
    }
}

/// Waits until the saga came to rest again.
async fn until_rested(world: &World, time: Time) {
    let (_, poll) = time.lease_and_poll();
    let rested = async {
        while world.journal().await.is_some_and(|journal| journal.instance.status.is_active()) {
            sleep(poll).await;
        }
    };
    // If it does not, the judge says so.
    let _ = timeout(time.patience(), rested).await;
}

/// Lets the frozen go on, and waits until they have done what they still do. False if they never have.
async fn end(
    lives: &mut [Life],
    asking: &mut Option<JoinHandle<()>>,
    time: Time,
    schedule: &Schedule,
) -> bool {
    let freezes = matches!(schedule.first, Some((_, Cut::Freezes)));
    if !freezes && asking.is_none() {
        return true;
    }
    let over = async {
        if let Some(frozen) = lives.first_mut().filter(|_| freezes) {
            frozen.gate.open();
            if !frozen.running.is_finished() {
                let _ = (&mut frozen.running).await;
            }
        }
        if let Some(asking) = asking {
            let _ = asking.await;
        }
        while lives.iter().any(|life| !life.is_idle()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(time.patience(), over).await.is_ok()
}
