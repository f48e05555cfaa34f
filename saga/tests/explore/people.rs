//! The promises when people cancel, pause and resolve at every write point. The explorer catches stores that forget
//! requests of people.
#![cfg(feature = "testing")]

use std::sync::Arc;

use probity_saga::testing::broken::{BrokenStore, Fault};
use probity_saga::testing::{Explored, explore, explore_on};
use probity_saga::{Backoff, BuildError, ForwardStep, Saga, StepContext, StepError, StepPolicy};

undoable!(Reserve);
undoable!(Charge);

fn saga() -> Result<Saga, BuildError> {
    Saga::named("explored").step(Reserve).step(Charge).build()
}

// proves: S-8
#[test]
fn sagas_that_people_cancel_pause_and_close_keep_their_promises() {
    let report = explore(1_u32, saga).unwrap();
    assert!(report.aborted > 0 && report.completed > 0 && report.compensated > 0, "{report:?}");
    assert_eq!(report.waiting, 0, "{report:?}");
}

/// Refused, and past the pivot: it waits for a person, who can settle it.
struct Tell;
impl ForwardStep for Tell {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Tell";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Err(StepError::rejected("nobody listens"))
    }
}

/// Takes the money, and cannot say so.
struct Mute;
impl ForwardStep for Mute {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Mute";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Err(StepError::unknown("no answer"))
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent()
    }
}

// proves: S-8
#[test]
fn every_way_to_resolve_a_waiting_saga_keeps_its_promises() {
    let report = explore(1_u32, || Saga::named("explored").pivot(Mute).step(Tell).build()).unwrap();
    assert!(report.waiting > 0 && report.aborted > 0, "{report:?}");
    assert!(
        report.compensated > 0,
        "a person who settles the pivot as not applied turns it back: {report:?}"
    );
}

struct Pay;
impl ForwardStep for Pay {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pay";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
}

/// Tried once, and never repeated on a guess.
struct Mail;
impl ForwardStep for Mail {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Mail";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent().retries(Backoff::never())
    }
}

// proves: S-2, S-8
#[test]
fn a_resolution_by_a_person_lets_a_step_past_the_pivot_run_again() {
    let report = explore(1_u32, || Saga::named("explored").pivot(Pay).step(Mail).build()).unwrap();
    assert!(report.waiting > 0 && report.completed > 0, "{report:?}");
}

/// The promise that explore says is broken on a store with this fault.
async fn broken_by(fault: Fault) -> String {
    match explore_on(Arc::new(BrokenStore::new(fault)), 1_u32, saga).await {
        Err(Explored::Broken(broken)) => broken.to_string(),
        other => panic!("{fault:?} passed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_forgets_requests_of_people_is_caught() {
    let broken = broken_by(Fault::LosesPauses).await;
    assert!(broken.starts_with("S-8") && broken.contains("asks it to pause"), "{broken}");
    let broken = broken_by(Fault::LosesCancels).await;
    assert!(broken.starts_with("S-8") && broken.contains("asks it to turn back"), "{broken}");
}
