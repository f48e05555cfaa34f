//! The promises under every cut of a four-step saga, and an explorer that is seen to fail.
#![cfg(feature = "testing")]

use probity_saga::testing::explore;
use probity_saga::{
    Evidence, Executed, ForwardStep, Saga, SagaStep, StepContext, StepError, StepPolicy, WhenUnknown,
};

macro_rules! step {
    ($name:ident, $policy:expr) => {
        struct $name;
        impl SagaStep for $name {
            type Input = u32;
            type Output = u32;
            const NAME: &'static str = stringify!($name);
            async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
                Ok(*cx.input())
            }
            async fn compensate(
                &self,
                _: &StepContext<u32>,
                _: Executed<u32>,
            ) -> Result<Evidence, StepError> {
                Ok(Evidence::new("undone"))
            }
            fn policy(&self) -> StepPolicy {
                $policy
            }
        }
    };
}

step!(Reserve, StepPolicy::default());
step!(Freeze, StepPolicy::default().not_idempotent().when_unknown(WhenUnknown::Compensate));
step!(Charge, StepPolicy::default());
step!(Confirm, StepPolicy::default());

macro_rules! forward {
    ($name:ident) => {
        struct $name;
        impl ForwardStep for $name {
            type Input = u32;
            type Output = ();
            const NAME: &'static str = stringify!($name);
            async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
                Ok(())
            }
        }
    };
}

forward!(Pay);
forward!(Tell);

// proves: S-1, S-2, S-3, S-4, S-5, S-6, S-7
#[test]
fn a_four_step_saga_keeps_its_promises_under_every_cut() {
    let saga = || Saga::named("explored").step(Reserve).step(Freeze).step(Charge).step(Confirm).build();
    let report = explore(1_u32, saga).unwrap();
    assert!(report.schedules >= 2_000, "{report:?}");
    assert!(report.completed > 0 && report.compensated > 0, "{report:?}");
    assert_eq!(report.waiting, 0, "{report:?}");
}

// proves: S-3, S-8
#[test]
fn past_the_pivot_a_saga_goes_forward_or_waits_for_a_person() {
    let saga = || Saga::named("explored").step(Reserve).pivot(Pay).step(Tell).build();
    let report = explore(1_u32, saga).unwrap();
    assert!(report.completed > 0 && report.compensated > 0 && report.waiting > 0, "{report:?}");
}

/// Undoes only what it knows, which is not enough.
struct Forgetful;
impl SagaStep for Forgetful {
    type Input = u32;
    type Output = u32;
    const NAME: &'static str = "Forgetful";
    async fn execute(&self, cx: &StepContext<u32>) -> Result<u32, StepError> {
        Ok(*cx.input())
    }
    async fn compensate(&self, _: &StepContext<u32>, done: Executed<u32>) -> Result<Evidence, StepError> {
        match done {
            Executed::Applied(_) => Ok(Evidence::new("undone")),
            Executed::Unknown => Err(StepError::rejected("I only undo what I know")),
        }
    }
    fn policy(&self) -> StepPolicy {
        StepPolicy::default().not_idempotent().when_unknown(WhenUnknown::Compensate)
    }
}

#[test]
fn an_undo_that_refuses_unknown_effects_leaves_sagas_to_a_person() {
    let report = explore(1_u32, || Saga::named("explored").step(Forgetful).step(Charge).build()).unwrap();
    assert!(report.waiting > 0, "{report:?}");
}
