//! Stored documents: a document that is too long parks its saga, and none is quoted in reasons.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use probity_saga::{
    Evidence, Executed, MemoryStore, Orchestrator, Outcome, Saga, SagaStep, StepContext, StepError,
    StepStatus,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

struct Report;
impl SagaStep for Report {
    type Input = u32;
    type Output = String;
    const NAME: &'static str = "Report";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<String, StepError> {
        Ok("x".repeat(*cx.input() as usize))
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<String>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("withdrawn"))
    }
}

/// Written as text, read as a number: what an incompatible new version of a step does.
struct Card(&'static str);
impl Serialize for Card {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}
impl<'de> Deserialize<'de> for Card {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(|_| Self(""))
    }
}

struct Remember;
impl SagaStep for Remember {
    type Input = u32;
    type Output = Card;
    const NAME: &'static str = "Remember";
    async fn execute(&self, _: &StepContext<u32>) -> Result<Card, StepError> {
        Ok(Card("4111111111111111"))
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<Card>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("forgotten"))
    }
}

struct Charge;
impl SagaStep for Charge {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Charge";
    const USES: &'static [&'static str] = &[Remember::NAME];
    async fn execute(&self, cx: &StepContext<u32>) -> Result<(), StepError> {
        cx.output::<Remember, _>().map(|_| ())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("refunded"))
    }
}

async fn orchestrator(saga: Saga) -> Orchestrator {
    testkit::time_limit();
    Orchestrator::shared(Arc::new(MemoryStore::new())).register(saga).start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_output_above_the_limit_parks_its_saga_with_the_step_unknown() {
    let orchestrator = orchestrator(Saga::named("report").step(Report).build().unwrap()).await;
    // Two bytes are the quotes.
    let fits = orchestrator.run("report", "R-1", &(1024 * 1024 - 2_u32)).await.unwrap();
    assert_eq!(fits, Outcome::Completed);
    let outcome = orchestrator.run("report", "R-2", &(1024 * 1024 - 1_u32)).await.unwrap();
    let Outcome::Paused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("it has 1048577 bytes, the limit is 1048576"), "{reason}");
    let view = orchestrator.get("report", "R-2").await.unwrap().unwrap();
    assert_eq!(view.steps[0].status, StepStatus::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_cannot_be_read_is_not_quoted_in_the_reason() {
    let saga = Saga::named("payment").step(Remember).step(Charge).build().unwrap();
    let orchestrator = orchestrator(saga).await;
    let outcome = orchestrator.run("payment", "PAY-1", &1_u32).await.unwrap();
    let Outcome::Paused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(!reason.contains("4111"), "{reason}");
    assert!(reason.contains("line 1 column 18"), "{reason}");
}
