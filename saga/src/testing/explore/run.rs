//! One schedule: up to three workers on one store, one after the other, with zombies beside them.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::gated::{Gate, GatedStore};
use super::schedule::{Cut, Schedule};
use super::watched::{self, World};
use super::{Explored, judge};
use crate::error::BuildError;
use crate::machine::Status;
use crate::orchestrator::Orchestrator;
use crate::plan::Saga;
use crate::record::{Journal, SagaId, Worker};
use crate::step::Payload;
use crate::store::SagaStore;

/// In virtual time a lease runs out by waiting. In real time it is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Virtual,
    Real,
}

impl Time {
    /// In virtual time each look for lost sagas costs more than the time it waits.
    fn lease_and_poll(self) -> (Duration, Duration) {
        match self {
            Self::Virtual => (Duration::from_secs(6), Duration::from_secs(6)),
            Self::Real => (Duration::from_secs(60), Duration::from_millis(50)),
        }
    }

    /// Nothing that works takes longer.
    fn patience(self) -> Duration {
        match self {
            Self::Virtual => Duration::from_secs(3600),
            Self::Real => Duration::from_secs(60),
        }
    }
}

/// How a schedule ended.
pub(super) struct Ran {
    pub(super) status: Option<Status>,
    pub(super) broken: Option<String>,
    /// How many points the first two workers passed.
    pub(super) points: [usize; 2],
    pub(super) journal: Option<Journal>,
}

/// A worker of a schedule.
struct Life {
    gate: Arc<Gate>,
    worker: Orchestrator,
    running: JoinHandle<()>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub(super) async fn run<I: Payload + Clone>(
    store: Arc<dyn SagaStore>,
    time: Time,
    input: &I,
    saga: &impl Fn() -> Result<Saga, BuildError>,
    schedule: Schedule,
) -> Result<Ran, Explored> {
    // A type of its own, so that the workers of another schedule leave it alone.
    let name = format!("explored-{}", SagaId::generate());
    let world = Arc::new(World::new(store, &name, schedule.fate, saga()?.shape));
    let mut lives: Vec<Life> = Vec::new();
    for turn in 0..3 {
        let gate = Arc::new(gate(turn, &schedule, lives.first().map(|life| &life.gate)));
        let mut life = live(&world, gate, time, input, saga()?, schedule.by_transaction).await?;
        let cut = tokio::select! {
            _ = &mut life.running => false,
            () = life.gate.tripped() => true,
            () = sleep(time.patience()) => false,
        };
        if cut {
            stop(&world, &life, time, turn, &schedule).await?;
        }
        lives.push(life);
        if !cut {
            break;
        }
    }
    let rested = world.journal().await.map(|journal| journal.instance);
    if !end(&lives, time, &schedule).await {
        world.breaks("S-7: a worker holds on to a saga that came to rest".into());
    }
    let now = world.journal().await;
    let broken = world.broken_promise().or_else(|| judge::judge(&world, rested.as_ref(), now.as_ref()));
    let points = [0, 1].map(|at| lives.get(at).map_or(0, |life| life.gate.points()));
    Ok(Ran { status: rested.map(|instance| instance.status), broken, points, journal: now })
}

fn gate(turn: usize, schedule: &Schedule, first: Option<&Arc<Gate>>) -> Gate {
    match (turn, schedule.first, schedule.second) {
        (0, Some((point, Cut::Leaves)), _) => Gate::leaving_at(point),
        (0, Some((point, _)), _) => Gate::stopping_at(point),
        (1, Some((_, Cut::Freezes)), Some(point)) => match first {
            Some(first) => Gate::releasing_at(point, Arc::clone(first)),
            None => Gate::open_to_all(),
        },
        (1, _, Some(point)) => Gate::stopping_at(point),
        _ => Gate::open_to_all(),
    }
}

async fn live<I: Payload + Clone>(
    world: &Arc<World>,
    gate: Arc<Gate>,
    time: Time,
    input: &I,
    saga: Saga,
    by_transaction: bool,
) -> Result<Life, Explored> {
    let saga = watched::watch(saga, world, &gate);
    let store = GatedStore::new(Arc::clone(world), Arc::clone(&gate));
    let (lease, poll) = time.lease_and_poll();
    let worker = Orchestrator::new(store).lease(lease).poll(poll).register(saga).start().await?;
    let (runner, input, name) = (worker.clone(), input.clone(), world.name.clone());
    let running = tokio::spawn(async move {
        // The judge looks at the store, not at what a caller heard.
        if by_transaction {
            if let Ok(started) = runner.start_unattended(&name, "explored", &input).await {
                let _ = runner.wait(&started).await;
            }
        } else {
            let _ = runner.run(&name, "explored", &input).await;
        }
    });
    Ok(Life { gate, worker, running })
}

/// What becomes of a worker at its cut.
async fn stop(
    world: &World,
    life: &Life,
    time: Time,
    turn: usize,
    schedule: &Schedule,
) -> Result<(), Explored> {
    match schedule.first {
        Some((_, Cut::Leaves)) if turn == 0 => life.worker.drain().await.unwrap_or_default(),
        Some((_, Cut::Freezes)) if time == Time::Virtual => {}
        _ => {
            // As after the length of its lease, for others and for itself.
            let dead = Worker { id: life.worker.worker(), lease: Duration::ZERO, pid: 0 };
            let _ = world.store.beat(&dead).await.map_err(BuildError::from)?;
            life.worker.forget_lease();
        }
    }
    Ok(())
}

/// Lets the frozen go on, and waits until they have done what they still do. False if they never have.
async fn end(lives: &[Life], time: Time, schedule: &Schedule) -> bool {
    let (Some((_, Cut::Freezes)), Some(frozen)) = (schedule.first, lives.first()) else { return true };
    frozen.gate.open();
    let idle = async {
        while lives.iter().any(|life| !life.worker.is_idle()) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(time.patience(), idle).await.is_ok()
}
