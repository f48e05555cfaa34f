//! Workers that die by kill -9 before the commit of a local step, after it, and in its undo. The test binary starts
//! itself as the worker.

use std::time::Duration;

use probity_saga::definition::LocalDatabase;
use probity_saga::store::{Runs, SagaStore};
use probity_saga::{
    Evidence, Executed, LocalStep, Orchestrator, Outcome, PostgresStore, Saga, SagaStep, SqliteStore,
    StepContext, StepError,
};
use testkit::Worker;

use super::scenarios::{postgres, sqlite};
use super::script::{Fate, Script};
use super::stores;

const WORKER: Worker = Worker::named("killed::a_worker_without_orders_does_nothing");
const LEASE: Duration = Duration::from_millis(800);

/// The place where the worker is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    BeforeTheCommit,
    AfterTheCommit,
    InTheUndo,
}

const PLACES: [(&str, Place); 3] =
    [("before", Place::BeforeTheCommit), ("after", Place::AfterTheCommit), ("undo", Place::InTheUndo)];

/// The step after the local one.
struct Next {
    place: Place,
    stops: bool,
}

impl SagaStep for Next {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Next";

    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        match self.place {
            Place::AfterTheCommit if self.stops => {
                report();
                std::future::pending().await
            }
            Place::InTheUndo => Err(StepError::rejected("no")),
            _ => Ok(()),
        }
    }

    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("nothing"))
    }
}

const THERE: &str = "it is there";

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn report() {
    println!("{THERE}");
}

async fn worker<DB, S>(store: S, take: impl LocalStep<DB, Input = u32>, next: Next) -> Orchestrator
where
    DB: LocalDatabase,
    S: SagaStore + Runs<DB>,
{
    let saga = Saga::named("order").local_step(take).step(next).build().unwrap();
    let builder = Orchestrator::new(store).lease(LEASE).poll(Duration::from_millis(50));
    builder.register(saga).start().await.unwrap()
}

/// Runs the saga until it is killed.
async fn until_killed<DB, S>(store: S, take: impl LocalStep<DB, Input = u32>, place: Place, script: &Script)
where
    DB: LocalDatabase,
    S: SagaStore + Runs<DB>,
{
    let orchestrator = worker(store, take, Next { place, stops: true }).await;
    let _started = orchestrator.start("order", "O-1", &1_u32).await.unwrap();
    script.reached.notified().await;
    report();
    std::future::pending::<()>().await;
}

/// The worker, when it is told its work; on its own it has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_orders_does_nothing() {
    let Some(orders) = WORKER.orders() else { return };
    let (place, database) = orders.split_once('|').unwrap();
    let place = PLACES.iter().find(|(name, _)| *name == place).unwrap().1;
    let waits = |waits: bool| Script::of(waits.then_some(Fate::Waits));
    let (does, undoes) = (waits(place == Place::BeforeTheCommit), waits(place == Place::InTheUndo));
    let script = if place == Place::InTheUndo { undoes } else { does };
    if database.starts_with("postgres") {
        let store = PostgresStore::new(stores::postgres_at(database).await).await.unwrap();
        until_killed(store, postgres::take(does, undoes).patient(), place, script).await;
    } else {
        let pool = stores::sqlite_in(std::path::Path::new(database)).await;
        let store = SqliteStore::new(pool).await.unwrap();
        until_killed(store, sqlite::take(does, undoes).patient(), place, script).await;
    }
}

fn kill_one(place: &str, database: &str) {
    let mut program = WORKER.start(&format!("{place}|{database}"));
    program.wait_for_line(THERE);
    program.kill9();
}

/// The next worker finishes the saga; how often it ran the step and its undo is as expected.
async fn finish<DB, S>(store: S, take: impl LocalStep<DB, Input = u32>, place: Place)
where
    DB: LocalDatabase,
    S: SagaStore + Runs<DB>,
{
    let orchestrator = worker(store, take, Next { place, stops: false }).await;
    let started = orchestrator.start("order", "O-1", &1_u32).await.unwrap();
    let outcome = orchestrator.wait(&started).await.unwrap();
    match place {
        Place::InTheUndo => assert_eq!(outcome, Outcome::Compensated { reason: "Next: no".into() }),
        _ => assert_eq!(outcome, Outcome::Completed),
    }
    orchestrator.drain().await.unwrap();
}

/// The calls of the second worker, and the effects in the end.
fn expected(place: Place) -> ((u32, u32), &'static [&'static str]) {
    match place {
        Place::BeforeTheCommit => ((1, 0), &["Take"]),
        Place::AfterTheCommit => ((0, 0), &["Take"]),
        Place::InTheUndo => ((0, 1), &["Take", "Undo"]),
    }
}

// proves: S-2, S-7, S-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_around_a_commit_leaves_effect_and_record_or_neither_on_sqlite() {
    for (name, place) in PLACES {
        let folder = testkit::temp_dir();
        let pool = stores::sqlite_in(folder.path()).await;
        kill_one(name, &folder.path().display().to_string());
        let (does, undoes) = (Script::of([]), Script::of([]));
        let store = SqliteStore::new(pool.clone()).await.unwrap();
        finish(store, sqlite::take(does, undoes), place).await;
        let found = ((does.calls(), undoes.calls()), sqlite::effects(&pool, "O-1").await);
        let (calls, there) = expected(place);
        assert_eq!(found, (calls, there.iter().map(ToString::to_string).collect()), "{place:?}");
    }
}

// proves: S-2, S-7, S-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_around_a_commit_leaves_effect_and_record_or_neither_on_postgres() {
    for (name, place) in PLACES {
        let (pool, store, database) = stores::postgres().await;
        kill_one(name, database.url());
        let (does, undoes) = (Script::of([]), Script::of([]));
        finish(store, postgres::take(does, undoes), place).await;
        let found = ((does.calls(), undoes.calls()), postgres::effects(&pool, "O-1").await);
        let (calls, there) = expected(place);
        assert_eq!(found, (calls, there.iter().map(ToString::to_string).collect()), "{place:?}");
    }
}
