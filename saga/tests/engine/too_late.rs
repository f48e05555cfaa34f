//! A request to turn back that came too late is shown as such in every status of the saga.

use std::sync::Arc;

use probity_saga::{
    Cancelled, ForwardStep, MemoryStore, Orchestrator, Outcome, Saga, StepContext, StepError,
};
use tokio::sync::Notify;

#[derive(Default)]
struct Channel {
    reached: Notify,
    answers: Notify,
}

struct Pay(Arc<Channel>);
impl ForwardStep for Pay {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pay";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        self.0.reached.notify_one();
        self.0.answers.notified().await;
        Ok(())
    }
}

struct Tell;
impl ForwardStep for Tell {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Tell";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Err(StepError::rejected("nobody listens"))
    }
}

// proves: S-8
#[tokio::test(start_paused = true)]
async fn a_cancel_after_the_pivot_is_reported_too_late_also_on_a_stuck_saga() {
    testkit::time_limit();
    let channel = Arc::new(Channel::default());
    let saga = Saga::named("payment").pivot(Pay(Arc::clone(&channel))).step(Tell).build().unwrap();
    let worker = Orchestrator::new(MemoryStore::new()).register(saga).start().await.unwrap();
    let started = worker.start("payment", "P-1", &1_u32).await.unwrap();
    channel.reached.notified().await;
    let asked = worker.operator("ann").cancel("payment", "P-1", "customer left").await.unwrap();
    assert_eq!(asked, Cancelled::Requested);
    channel.answers.notify_one();
    assert!(matches!(worker.wait(&started).await.unwrap(), Outcome::Stuck { .. }));
    let view = worker.get("payment", "P-1").await.unwrap().unwrap();
    assert_eq!(view.instance.cancelled_too_late(), Some("cancel by ann: customer left"));
}
