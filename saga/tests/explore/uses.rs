//! A step that reads an output without listing it is found in tests.
#![cfg(feature = "testing")]

use probity_saga::testing::{Explored, explore};
use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, StepContext, StepError,
};

undoable!(Reserve);

/// Reads what it does not list, in `execute` or only in its undo.
struct Charge {
    in_undo: bool,
}
impl SagaStep for Charge {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Charge";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        if self.in_undo { Ok(1) } else { cx.output::<Reserve, _>() }
    }
    async fn compensate(&self, cx: &StepContext<u32>, _: Executed<u32>) -> Result<Evidence, StepError> {
        Ok(Evidence::new(format!("refunded {}", cx.output::<Reserve, _>()?)))
    }
}

const SAID: &str = "step Charge reads the output of Reserve and does not list it in `USES`";

#[test]
fn explore_finds_a_step_that_reads_an_unlisted_output() {
    for in_undo in [false, true] {
        let saga = || Saga::named("explored").step(Reserve).step(Charge { in_undo }).build();
        match explore(1_u32, saga) {
            Err(Explored::Broken(broken)) => assert!(broken.to_string().starts_with(SAID), "{broken}"),
            other => panic!("in_undo {in_undo} passed: {other:?}"),
        }
    }
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn with_debug_assertions_an_unlisted_read_pauses_the_saga_with_the_remedy() {
    let saga = Saga::named("payment").step(Reserve).step(Charge { in_undo: false }).build().unwrap();
    let orchestrator = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    match orchestrator.run("payment", "P-1", &1_u32).await.unwrap() {
        Outcome::Paused { reason } => assert!(reason.contains(SAID), "{reason}"),
        other => panic!("{other:?}"),
    }
}
