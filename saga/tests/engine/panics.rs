//! A panic outside a step's calls, in paused time: the saga is parked with the text, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, StepContext, StepError,
    StepPolicy,
};
use tokio::time::{sleep, timeout};

undoable!(Reserve);

#[derive(Default)]
struct Rules {
    mended: AtomicBool,
    read: AtomicU32,
}

struct Charge(Arc<Rules>);
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
    fn policy(&self) -> StepPolicy {
        if !self.0.mended.load(Ordering::SeqCst) {
            self.0.read.fetch_add(1, Ordering::SeqCst);
            assert_eq!(self.0.read.load(Ordering::SeqCst), 0, "no retry table is configured");
        }
        StepPolicy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_parks_its_saga_with_the_text_until_an_operator_resumes_it() {
    testkit::time_limit();
    let rules = Arc::new(Rules { mended: AtomicBool::new(true), ..Rules::default() });
    let saga = Saga::named("payment").step(Reserve).step(Charge(Arc::clone(&rules))).build().unwrap();
    let orchestrator =
        Orchestrator::shared(Arc::new(MemoryStore::new())).register(saga).start().await.unwrap();
    rules.mended.store(false, Ordering::SeqCst);

    let run = orchestrator.run("payment", "PAY-1", &1_u32);
    let outcome = timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let Outcome::Paused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("no retry table is configured"), "{reason}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rules.read.load(Ordering::SeqCst), 1, "claimed again");

    rules.mended.store(true, Ordering::SeqCst);
    orchestrator.operator("ann").resume("payment", "PAY-1", "mended").await.unwrap();
    let again = orchestrator.start("payment", "PAY-1", &1_u32).await.unwrap();
    assert_eq!(orchestrator.wait(&again).await.unwrap(), Outcome::Completed);
}
