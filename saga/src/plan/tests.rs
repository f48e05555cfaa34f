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

struct Mail;
impl ForwardStep for Mail {
    type Input = ();
    type Output = ();
    const NAME: &'static str = "Mail";
    async fn execute(&self, _: &StepContext<()>) -> Result<(), StepError> {
        Ok(())
    }
}

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
fn an_empty_reason_is_no_reason() {
    let built = Saga::named("s").step(Mail).no_compensation("  ").build();
    assert!(matches!(built, Err(BuildError::NoReason(step)) if step == "Mail"));
}

#[test]
fn nothing_at_or_after_the_pivot_is_ever_undone() {
    let saga = Saga::named("s").step(A).pivot(B).step(Mail).build().unwrap();
    let undo: Vec<_> = saga.shape.steps.iter().map(|step| (step.name, step.undo, step.pivot)).collect();
    assert_eq!(undo, [("A", true, false), ("B", false, true), ("Mail", false, false)]);
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
        print(Saga::named("s").step(A).pivot(B).build()),
        print(Saga::named("s").version(2).step(A).step(B).build()),
        print(Saga::named("t").step(A).step(B).build()),
    ] {
        assert_ne!(base, other);
    }
}
