//! The measured sagas: two steps that do nothing, one saga that completes and one that turns back.

use std::time::Duration;

use probity_saga::{
    Backoff, Evidence, Executed, Orchestrator, Outcome, Probe, Saga, SagaStep, StepContext, StepError,
    StepPolicy,
};

/// The input that lets the second step complete the saga.
pub(super) const DONE: u64 = 0;
pub(super) const REFUSED: u64 = 1;
/// The undo of the first step is tried again after a day.
pub(super) const PARKED: u64 = 2;

struct First;

impl SagaStep for First {
    type Input = u64;
    type Output = u64;
    const NAME: &'static str = "First";

    async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> {
        Ok(*cx.input())
    }

    async fn compensate(&self, cx: &StepContext<u64>, _: Executed<u64>) -> Result<Evidence, StepError> {
        match *cx.input() {
            PARKED => Err(StepError::retryable("the other side is closed today")),
            _ => Ok(Evidence::new("undone")),
        }
    }

    fn policy(&self) -> StepPolicy {
        let day = Duration::from_secs(24 * 60 * 60);
        StepPolicy::default().undo_retries(Backoff::constant(9, day))
    }
}

struct Second;

impl SagaStep for Second {
    type Input = u64;
    type Output = u64;
    const NAME: &'static str = "Second";

    async fn execute(&self, cx: &StepContext<u64>) -> Result<u64, StepError> {
        match *cx.input() {
            DONE => Ok(DONE),
            _ => Err(StepError::rejected("no")),
        }
    }

    async fn compensate(&self, _: &StepContext<u64>, _: Executed<u64>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }

    // Asked after a crash: it is known not to have run.
    async fn probe(&self, _: &StepContext<u64>) -> Result<Probe<u64>, StepError> {
        Ok(Probe::NotApplied)
    }
}

#[expect(clippy::expect_used, reason = "the saga is written above")]
pub(super) fn saga() -> Saga {
    Saga::named("bench").step(First).step(Second).build().expect("a valid saga")
}

/// Starts a saga and waits for its end.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn run(orchestrator: &Orchestrator, input: u64) {
    let outcome = orchestrator.run("bench", &name(), &input).await.expect("an outcome");
    match (input, outcome) {
        (DONE, Outcome::Completed) | (REFUSED, Outcome::Compensated { .. }) => {}
        (input, outcome) => unreachable!("{input} ended as {outcome:?}"),
    }
}

/// A business id that no saga had before.
pub(super) fn name() -> String {
    uuid::Uuid::now_v7().to_string()
}
