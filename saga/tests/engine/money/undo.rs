//! Undo stops at a step whose undo failed, until that is resolved (S-13).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Resolution, Saga, SagaStep, SagaView,
    StepContext, StepError, StepPolicy, StepStatus,
};

/// Which undos ran, and how often the one of the charge is still refused.
#[derive(Default)]
struct World {
    undone: Mutex<Vec<&'static str>>,
    refusals: AtomicU32,
    policy: StepPolicy,
}

macro_rules! step {
    ($name:ident) => {
        struct $name(Arc<World>);
        impl SagaStep for $name {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = stringify!($name);
            async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
                if Self::NAME == "Ship" { Err(StepError::rejected("no ship")) } else { Ok(*cx.input()) }
            }
            async fn compensate(
                &self,
                _: &StepContext<u32>,
                _: Executed<u32>,
            ) -> Result<Evidence, StepError> {
                let left = self.0.refusals.load(Ordering::SeqCst);
                if Self::NAME == "Charge" && left > 0 {
                    self.0.refusals.store(left - 1, Ordering::SeqCst);
                    return Err(StepError::rejected("the channel refuses refunds"));
                }
                self.0.undone.lock().unwrap().push(Self::NAME);
                Ok(Evidence::new("undone"))
            }
            fn policy(&self) -> StepPolicy {
                if Self::NAME == "Charge" { self.0.policy.clone() } else { StepPolicy::default() }
            }
        }
    };
}

step!(Order);
step!(Charge);
step!(Ship);

struct Stage {
    world: Arc<World>,
    orchestrator: Orchestrator,
}

impl Stage {
    /// A saga that is stuck because its charge cannot be undone.
    async fn stuck(policy: StepPolicy) -> Self {
        testkit::time_limit();
        let world = Arc::new(World { refusals: AtomicU32::new(1), policy, ..World::default() });
        let [order, charge, ship] = [(); 3].map(|()| world.clone());
        let saga =
            Saga::named("buy").step(Order(order)).step(Charge(charge)).step(Ship(ship)).build().unwrap();
        let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
        let outcome = orchestrator.run("buy", "B-1", &1_u32).await.unwrap();
        assert!(
            matches!(&outcome, Outcome::Stuck { reason, .. } if reason.contains("undo of Charge")),
            "{outcome:?}"
        );
        Self { world, orchestrator }
    }

    fn undone(&self) -> Vec<&'static str> {
        self.world.undone.lock().unwrap().clone()
    }

    async fn view(&self) -> SagaView {
        self.orchestrator.get("buy", "B-1").await.unwrap().unwrap()
    }

    async fn statuses(&self) -> Vec<StepStatus> {
        self.view().await.steps.iter().map(|row| row.status).collect()
    }

    async fn end(&self) -> Outcome {
        let again = self.orchestrator.start("buy", "B-1", &1_u32).await.unwrap();
        self.orchestrator.wait(&again).await.unwrap()
    }
}

// proves: S-5, S-13
#[tokio::test(start_paused = true)]
async fn the_steps_before_a_failed_undo_stay_as_they_are() {
    let stage = Stage::stuck(StepPolicy::default()).await;
    assert_eq!(stage.undone(), [""; 0]);
    let statuses = [StepStatus::Succeeded, StepStatus::CompensationFailed, StepStatus::Failed];
    assert_eq!(stage.statuses().await, statuses);
    assert_eq!(stage.view().await.instance.unresolved, 2, "what is still to be undone is open as well");
}

// proves: S-4, S-13
#[tokio::test(start_paused = true)]
async fn an_undo_that_is_tried_again_goes_on_with_the_steps_before_it() {
    let stage = Stage::stuck(StepPolicy::default()).await;
    stage.orchestrator.operator("ann").retry_now("buy", "B-1", "the channel is back").await.unwrap();
    assert!(matches!(stage.end().await, Outcome::Compensated { .. }));
    assert_eq!(stage.undone(), ["Charge", "Order"]);
}

// proves: S-8, S-13
#[tokio::test(start_paused = true)]
async fn an_undo_that_a_person_did_goes_on_with_the_steps_before_it() {
    let stage = Stage::stuck(StepPolicy::default()).await;
    let operator = stage.orchestrator.operator("ann");
    operator.resolve_step("buy", "B-1", 2, Resolution::Compensated, "transfer 7").await.unwrap();
    assert!(matches!(stage.end().await, Outcome::Compensated { .. }));
    assert_eq!(stage.undone(), ["Order"]);
}

// proves: S-13
#[tokio::test(start_paused = true)]
async fn resolving_an_earlier_step_does_not_pass_over_a_failed_undo() {
    let stage = Stage::stuck(StepPolicy::default()).await;
    let operator = stage.orchestrator.operator("ann");
    operator.resolve_step("buy", "B-1", 1, Resolution::Compensated, "cancelled by hand").await.unwrap();
    assert!(matches!(stage.end().await, Outcome::Stuck { .. }));
    assert_eq!(stage.view().await.instance.unresolved, 1);
}

// proves: S-13
#[tokio::test(start_paused = true)]
async fn a_step_may_declare_that_earlier_undos_need_not_wait() {
    let stage = Stage::stuck(StepPolicy::default().earlier_undos_need_not_wait()).await;
    assert_eq!(stage.undone(), ["Order"]);
    let statuses = [StepStatus::Compensated, StepStatus::CompensationFailed, StepStatus::Failed];
    assert_eq!(stage.statuses().await, statuses);
}
