//! A pivot that may have happened is probed before any step is undone, and if it happened no step is undone (S-14).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use probity_saga::store::{NewSaga, SagaStore, Verdict, WorkerId};
use probity_saga::{
    Cancelled, Evidence, Executed, ForwardStep, MemoryStore, Orchestrator, Outcome, Probe, Resolution, Saga,
    SagaError, SagaStep, SagaView, Started, Status, StepContext, StepError, StepPolicy, StepStatus,
    store::{Document, StepRow},
};

use crate::handmade::{first_step, new_saga};

/// The answers of the bank about the transfer, and the fate of the reservation.
struct World {
    probe: Mutex<Probe<u32>>,
    hangs: AtomicBool,
    paid: AtomicBool,
    released: AtomicBool,
}

struct Reserve(Arc<World>);
impl SagaStep for Reserve {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Reserve";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        self.0.released.store(true, Ordering::SeqCst);
        Ok(Evidence::new("released"))
    }
}

struct Pay(Arc<World>);
impl ForwardStep for Pay {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Pay";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        cx.effect_acknowledged("transfer t-1");
        assert!(!self.0.paid.swap(true, Ordering::SeqCst), "paid twice");
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Err(StepError::unknown("no answer"))
    }
    async fn probe(&self, _: &StepContext<u32>) -> Result<Probe<u32>, StepError> {
        Ok(*self.0.probe.lock().unwrap())
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

struct Stage {
    world: Arc<World>,
    store: Arc<dyn SagaStore>,
    orchestrator: Orchestrator,
}

fn saga(world: &Arc<World>) -> Saga {
    Saga::named("pay").step(Reserve(world.clone())).pivot(Pay(world.clone())).build().unwrap()
}

async fn worker(store: &Arc<dyn SagaStore>, world: &Arc<World>) -> Orchestrator {
    Orchestrator::shared(store.clone()).register(saga(world)).start().await.unwrap()
}

impl Stage {
    async fn new(hangs: bool) -> Self {
        Self::on(Arc::new(MemoryStore::new()), hangs).await
    }

    async fn on(store: Arc<dyn SagaStore>, hangs: bool) -> Self {
        testkit::time_limit();
        let world = Arc::new(World {
            probe: Mutex::new(Probe::Unknown),
            hangs: hangs.into(),
            paid: false.into(),
            released: false.into(),
        });
        let orchestrator = worker(&store, &world).await;
        Self { world, store, orchestrator }
    }

    /// The pivot is stuck: it was called, and its outcome is unknown.
    async fn stuck(store: Arc<dyn SagaStore>) -> Self {
        let stage = Self::on(store, false).await;
        let outcome = stage.orchestrator.run("pay", "P-1", &1_u32).await.unwrap();
        assert!(matches!(outcome, Outcome::Stuck { step: 2, .. }), "{outcome:?}");
        stage
    }

    /// Asked to turn back while the worker is inside the pivot, in which it dies.
    async fn cancelled_and_dead(probe: Probe<u32>) -> Self {
        let stage = Self::new(true).await;
        let _started: Started = stage.orchestrator.start("pay", "P-1", &1_u32).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(stage.world.paid.load(Ordering::SeqCst));
        let answer =
            stage.orchestrator.operator("ann").cancel("pay", "P-1", "changed my mind").await.unwrap();
        assert_eq!(answer, Cancelled::Requested);
        stage.says(probe);
        let Self { world, store, orchestrator } = stage;
        drop(orchestrator);
        let orchestrator = worker(&store, &world).await;
        Self { world, store, orchestrator }
    }

    fn says(&self, probe: Probe<u32>) {
        *self.world.probe.lock().unwrap() = probe;
    }

    async fn end(&self) -> Outcome {
        let again = self.orchestrator.start("pay", "P-1", &1_u32).await.unwrap();
        self.orchestrator.wait(&again).await.unwrap()
    }

    async fn view(&self) -> SagaView {
        self.orchestrator.get("pay", "P-1").await.unwrap().unwrap()
    }

    fn released(&self) -> bool {
        self.world.released.load(Ordering::SeqCst)
    }
}

// proves: S-5, S-14
#[tokio::test(start_paused = true)]
async fn a_cancel_that_finds_the_pivot_happened_is_too_late() {
    let stage = Stage::cancelled_and_dead(Probe::Applied(7)).await;
    assert_eq!(stage.end().await, Outcome::Completed);
    assert!(!stage.released());
    assert!(stage.view().await.instance.cancelled_too_late().is_some());
}

// proves: S-14
#[tokio::test(start_paused = true)]
async fn a_cancel_that_finds_that_the_pivot_did_not_happen_turns_back() {
    let stage = Stage::cancelled_and_dead(Probe::NotApplied).await;
    let outcome = stage.end().await;
    assert_eq!(outcome, Outcome::Compensated { reason: "cancel by ann: changed my mind".into() });
    assert!(stage.released());
}

// proves: S-8, S-14
#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_pivot_is_unknown_undoes_nothing_and_waits_for_a_person() {
    for probe in [Probe::Unknown, Probe::NotSeenYet] {
        let stage = Stage::cancelled_and_dead(probe).await;
        let outcome = stage.end().await;
        let Outcome::Stuck { step: 2, reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("may have happened") && reason.contains("changed my mind"), "{reason}");
        assert!(!stage.released());
        // The bank knows by now, and a person lets the saga ask once more. It still does not begin anything.
        stage.says(Probe::NotApplied);
        stage.orchestrator.operator("ann").retry_now("pay", "P-1", "the bank is back").await.unwrap();
        assert!(matches!(stage.end().await, Outcome::Compensated { .. }));
    }
}

async fn an_operator_hears_that_a_stuck_pivot_is_asked_first(store: Arc<dyn SagaStore>) {
    let stage = Stage::stuck(store).await;
    stage.says(Probe::Applied(7));
    let answer = stage.orchestrator.operator("ann").compensate("pay", "P-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    assert_eq!(stage.end().await, Outcome::Completed);
    assert!(!stage.released() && stage.view().await.instance.cancelled_too_late().is_some());
}

async fn a_stuck_pivot_turns_back(store: Arc<dyn SagaStore>) {
    let stage = Stage::stuck(store).await;
    stage.says(Probe::NotApplied);
    let answer = stage.orchestrator.operator("ann").compensate("pay", "P-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    assert!(matches!(stage.end().await, Outcome::Compensated { .. }));
    assert!(stage.released());
}

// proves: S-12, S-14
#[tokio::test(start_paused = true)]
async fn a_turn_that_finds_nothing_out_leaves_the_effect_that_was_stated() {
    let stage = Stage::stuck(Arc::new(MemoryStore::new())).await;
    let stuck = stage.view().await.steps[1].error.clone();
    assert!(stuck.as_ref().is_some_and(|error| error.contains("transfer t-1")), "{stuck:?}");
    let _asked = stage.orchestrator.operator("ann").compensate("pay", "P-1", "customer left").await.unwrap();
    assert!(matches!(stage.end().await, Outcome::Stuck { .. }));
    let error = stage.view().await.steps[1].error.clone().unwrap();
    assert!(error.contains("transfer t-1") && error.contains("customer left"), "{error}");
}

// proves: S-5, S-14
#[tokio::test(start_paused = true)]
async fn turning_back_a_stuck_pivot_answers_that_the_pivot_is_probed_first() {
    an_operator_hears_that_a_stuck_pivot_is_asked_first(Arc::new(MemoryStore::new())).await;
}

// proves: S-14
#[tokio::test(start_paused = true)]
async fn a_stuck_pivot_that_did_not_happen_is_turned_back() {
    a_stuck_pivot_turns_back(Arc::new(MemoryStore::new())).await;
}

/// The decision that lets such a saga go on carries the request to turn back: a database has to write both.
#[cfg(feature = "sqlite")]
mod on_sqlite {
    use probity_saga::SqliteStore;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};

    use super::*;

    async fn store() -> (Arc<dyn SagaStore>, impl Sized) {
        testkit::time_limit();
        let folder = testkit::temp_dir();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("sagas.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        (Arc::new(SqliteStore::new(pool).await.unwrap()), folder)
    }

    // proves: S-5, S-14
    #[tokio::test]
    async fn turning_back_a_stuck_pivot_answers_that_the_pivot_is_probed_first() {
        let (store, _folder) = store().await;
        an_operator_hears_that_a_stuck_pivot_is_asked_first(store).await;
    }

    // proves: S-14
    #[tokio::test]
    async fn a_stuck_pivot_that_did_not_happen_is_turned_back() {
        let (store, _folder) = store().await;
        a_stuck_pivot_turns_back(store).await;
    }
}

// proves: S-14
#[tokio::test(start_paused = true)]
async fn a_saga_paused_at_its_pivot_probes_it_before_it_turns_back() {
    let stage = Stage::new(true).await;
    let _started: Started = stage.orchestrator.start("pay", "P-1", &1_u32).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let Stage { world, store, orchestrator } = stage;
    drop(orchestrator);
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Its worker is gone, and no other worker has the definition: the operator stops it as it stands.
    let idle = Saga::named("idle").pivot(Pay(world.clone())).build().unwrap();
    let desk = Orchestrator::shared(store.clone()).register(idle).start().await.unwrap();
    desk.operator("ann").pause("pay", "P-1", "let me look").await.unwrap();
    *world.probe.lock().unwrap() = Probe::Applied(7);
    let stage = Stage { orchestrator: worker(&store, &world).await, world, store };
    let answer = stage.orchestrator.operator("ann").compensate("pay", "P-1", "customer left").await.unwrap();
    assert_eq!(answer, Cancelled::Requested);
    assert_eq!(stage.end().await, Outcome::Completed);
    assert!(!stage.released());
}

/// Makes a saga as a version before this one left it: turned back while the pivot was in doubt, without a
/// way to resolve it.
async fn turned_in_doubt() -> Stage {
    let stage = Stage::new(false).await;
    let definition = saga(&stage.world).fingerprint().into();
    let new = NewSaga { saga_type: "pay".into(), definition, ..new_saga(WorkerId::generate(), "P-1") };
    let mut record = first_step(new.id, "Reserve");
    assert_eq!(stage.store.insert(&[new]).await.unwrap(), [probity_saga::store::Inserted::Created]);
    let (change, status, output) = (&mut record.change, StepStatus::Unknown, None);
    change.steps[0].output = Some(Document::encode(&1_u32).unwrap());
    let reserved = change.steps[0].clone();
    change.steps.push(StepRow { order: 2, name: "Pay".into(), status, output, completion: 2, ..reserved });
    (change.status, change.current_step, change.unresolved) = (Status::Compensating, 2, 2);
    change.reason = Some("cancel by bob: in the old days".into());
    record.release = Some(Duration::ZERO);
    assert!(matches!(stage.store.apply(&[record]).await.unwrap()[..], [Verdict::Applied(_)]));
    stage
}

async fn rests(stage: &Stage) -> SagaView {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let view = stage.view().await;
        if !view.instance.status.is_active() {
            return view;
        }
    }
}

// proves: S-5, S-14
#[tokio::test(start_paused = true)]
async fn resolving_the_pivot_of_a_turned_saga_as_applied_leaves_every_effect_in_place() {
    let stage = turned_in_doubt().await;
    let view = rests(&stage).await;
    assert_eq!((view.instance.status, stage.released()), (Status::Stuck, false));
    let operator = stage.orchestrator.operator("ann");
    let found = Resolution::applied(&7_u32).unwrap();
    operator.resolve_step("pay", "P-1", 2, found, "the bank's ledger").await.unwrap();
    operator.retry_now("pay", "P-1", "go on").await.unwrap();
    let view = rests(&stage).await;
    assert_eq!((view.instance.status, view.instance.unresolved), (Status::Stuck, 2));
    let reason = view.instance.reason.unwrap();
    assert!(reason.contains("Pay has happened") && reason.contains("by hand"), "{reason}");
    assert!(!stage.released());
    let refused = operator.compensate("pay", "P-1", "please").await;
    assert!(matches!(refused, Err(SagaError::Refused { .. })), "{refused:?}");
    // Only a person who takes the pivot back can end this saga.
    operator
        .resolve_step("pay", "P-1", 2, Resolution::Compensated, "transfer 8 brought it back")
        .await
        .unwrap();
    let view = rests(&stage).await;
    assert_eq!((view.instance.status, stage.released()), (Status::Compensated, true));
}

// proves: S-5, S-14
#[tokio::test(start_paused = true)]
async fn a_turned_saga_whose_pivot_happened_is_stuck_with_every_effect_in_place() {
    let stage = turned_in_doubt().await;
    stage.says(Probe::Applied(7));
    let view = rests(&stage).await;
    assert_eq!((view.instance.status, view.instance.unresolved), (Status::Stuck, 2));
    assert!(!stage.released());
}
