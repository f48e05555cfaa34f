use super::*;
use crate::{Evidence, Executed, StepContext, StepError};

macro_rules! undoable {
    ($name:ident, $text:literal) => {
        struct $name;
        impl SagaStep for $name {
            type Input = ();
            type Output = ();
            const NAME: &'static str = $text;
            async fn execute(&self, _: &StepContext<()>) -> Result<(), StepError> {
                Ok(())
            }
            async fn compensate(&self, _: &StepContext<()>, _: Executed<()>) -> Result<Evidence, StepError> {
                Ok(Evidence::new("undone"))
            }
        }
    };
}

undoable!(A, "A");
undoable!(B, "B");
undoable!(AlsoA, "A");
undoable!(Spaced, "A step");

macro_rules! forward {
    ($name:ident uses $($used:path),*) => {
        struct $name;
        impl ForwardStep for $name {
            type Input = ();
            type Output = ();
            const NAME: &'static str = stringify!($name);
            const USES: &'static [&'static str] = &[$($used),*];
            async fn execute(&self, _: &StepContext<()>) -> Result<(), StepError> {
                Ok(())
            }
        }
    };
}

forward!(Mail uses);
forward!(Pay uses A::NAME);
forward!(Report uses A::NAME, Pay::NAME);

#[test]
fn a_saga_without_steps_does_not_build() {
    assert!(matches!(Saga::named::<()>("s").build(), Err(BuildError::Empty(_))));
}

#[test]
fn two_steps_of_one_name_do_not_build() {
    let built = Saga::named("s").step(A).step(AlsoA).build();
    assert!(matches!(built, Err(BuildError::DuplicateStep { step, .. }) if step == "A"));
}

#[test]
fn a_name_that_does_not_fit_a_header_does_not_build() {
    assert!(matches!(Saga::named("s").step(Spaced).build(), Err(BuildError::BadName(_))));
    assert!(matches!(Saga::named("").step(A).build(), Err(BuildError::BadName(_))));
}

#[test]
fn an_empty_reason_does_not_build() {
    let built = Saga::named("s").step(Mail).no_compensation("  ").build();
    assert!(matches!(built, Err(BuildError::NoReason(step)) if step == "Mail"));
}

#[test]
fn nothing_at_or_after_the_pivot_is_ever_undone() {
    let saga = Saga::named("s").step(A).pivot(Pay).step(Mail).build().unwrap();
    let undo: Vec<_> = saga.shape.steps.iter().map(|step| (step.name, step.undo, step.pivot)).collect();
    assert_eq!(undo, [("A", true, false), ("Pay", false, true), ("Mail", false, false)]);
}

#[test]
fn a_step_that_uses_the_output_of_a_later_or_missing_step_does_not_build() {
    assert!(Saga::named("s").step(A).pivot(Pay).step(Report).build().is_ok());
    for (built, reader, read) in [
        (Saga::named("s").step(B).pivot(Pay).build(), "Pay", "A"),
        (Saga::named("s").step(A).pivot(Report).step(Pay).build(), "Report", "Pay"),
        (Saga::named("s").step(Pay).no_compensation("harmless").step(A).build(), "Pay", "A"),
    ] {
        let Err(BuildError::NoOutputYet { step, uses }) = built else { panic!("{built:?}") };
        assert_eq!((step.as_str(), uses.as_str()), (reader, read));
    }
}

// proves: S-10
#[test]
fn the_fingerprint_sees_names_order_kinds_and_version() {
    let print = |saga: Result<Saga, BuildError>| saga.unwrap().fingerprint().to_owned();
    let base = print(Saga::named("s").step(A).step(B).build());
    assert_eq!(base, print(Saga::named("s").step(A).step(B).build()));
    for other in [
        print(Saga::named("s").step(B).step(A).build()),
        print(Saga::named("s").step(A).build()),
        print(Saga::named("s").step(A).step(B).no_compensation("harmless").build()),
        print(Saga::named("s").step(A).pivot(Pay).build()),
        print(Saga::named("s").version(2).step(A).step(B).build()),
        print(Saga::named("t").step(A).step(B).build()),
    ] {
        assert_ne!(base, other);
    }
}
