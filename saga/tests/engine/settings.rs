//! Impossible settings are refused when an orchestrator starts, by a message with the limit.

use std::time::Duration;

use probity_saga::{BuildError, MemoryStore, Orchestrator, OrchestratorBuilder};

async fn refused(
    set: impl FnOnce(OrchestratorBuilder<MemoryStore>) -> OrchestratorBuilder<MemoryStore>,
) -> String {
    match set(Orchestrator::new(MemoryStore::new())).start().await {
        Err(BuildError::BadSetting(why)) => why.to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_number_that_no_semaphore_takes_is_refused_with_the_limit() {
    for many in [0, 1_000_001, usize::MAX >> 3, usize::MAX] {
        let why = refused(|builder| builder.in_flight(many)).await;
        assert_eq!(why, "1 to 1,000,000 sagas must be allowed in flight", "{many}");
        let why = refused(|builder| builder.provider_limit("bank", many)).await;
        assert_eq!(why, "1 to 1,000,000 calls must be allowed to a provider", "{many}");
    }
}

#[tokio::test]
async fn a_time_that_no_clock_can_add_is_refused_with_the_limit() {
    for poll in [Duration::ZERO, Duration::MAX] {
        let why = refused(|builder| builder.poll(poll)).await;
        assert_eq!(why, "the poll interval must be above zero and at most an hour");
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        let why = refused(|builder| builder.lease(lease)).await;
        assert_eq!(why, "a lease must be between 100 ms and an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_settings_work() {
    let builder =
        Orchestrator::new(MemoryStore::new()).in_flight(1_000_000).provider_limit("bank", 1_000_000);
    let builder = builder.poll(Duration::from_secs(3600)).lease(Duration::from_secs(3600));
    let orchestrator = builder.grace(Duration::MAX).start_patience(Duration::MAX).start().await.unwrap();
    orchestrator.drain().await.unwrap();
}
