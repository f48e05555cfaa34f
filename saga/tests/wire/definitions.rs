//! Fingerprints of definitions, and the names of states. No worker drives a saga whose fingerprint it does not know.

use std::fmt::Write as _;

use probity_saga::{
    Evidence, Executed, ForwardStep, LocalForwardStep, LocalStep, Saga, SagaStep, Status, StepContext,
    StepError, StepStatus,
};
use sqlx::{Sqlite, SqliteConnection};

use super::v1;

struct Undoable;
impl SagaStep for Undoable {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Undoable";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
    async fn compensate(&self, _: &StepContext<u32>, _: Executed<()>) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }
}

struct Forward(());
impl ForwardStep for Forward {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Forward";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
}

struct Pivot;
impl ForwardStep for Pivot {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "Pivot";
    async fn execute(&self, _: &StepContext<u32>) -> Result<(), StepError> {
        Ok(())
    }
}

struct LocalUndoable;
impl LocalStep<Sqlite> for LocalUndoable {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "LocalUndoable";
    async fn execute(&self, _: &StepContext<u32>, _: &mut SqliteConnection) -> Result<(), StepError> {
        Ok(())
    }
    async fn compensate(
        &self,
        _: &StepContext<u32>,
        (): (),
        _: &mut SqliteConnection,
    ) -> Result<Evidence, StepError> {
        Ok(Evidence::new("undone"))
    }
}

struct LocalForward;
impl LocalForwardStep<Sqlite> for LocalForward {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "LocalForward";
    async fn execute(&self, _: &StepContext<u32>, _: &mut SqliteConnection) -> Result<(), StepError> {
        Ok(())
    }
}

struct LocalPivot;
impl LocalForwardStep<Sqlite> for LocalPivot {
    type Input = u32;
    type Output = ();
    const NAME: &'static str = "LocalPivot";
    async fn execute(&self, _: &StepContext<u32>, _: &mut SqliteConnection) -> Result<(), StepError> {
        Ok(())
    }
}

// proves: S-10
#[test]
fn definitions_have_the_fingerprints_that_are_stored_with_sagas() {
    let plain = |name: &str, version| Saga::named(name).version(version).step(Undoable).build().unwrap();
    let without = Saga::named("a").step(Undoable).no_compensation("reason one").build().unwrap();
    let other = Saga::named("a").step(Undoable).no_compensation("reason two").build().unwrap();
    let forward = Saga::named("a").step(Forward(())).no_compensation("it only reads").build().unwrap();
    let pivot = Saga::named("a").step(Undoable).pivot(Pivot).step(Forward(())).build().unwrap();
    let local = Saga::named("a")
        .local_step(LocalUndoable)
        .local_step(LocalForward)
        .no_compensation("it only reads")
        .local_pivot(LocalPivot)
        .build()
        .unwrap();
    let prints = [
        ("a, version 1: Undoable", plain("a", 1).fingerprint().to_owned()),
        ("a, version 2: Undoable", plain("a", 2).fingerprint().to_owned()),
        ("b, version 1: Undoable", plain("b", 1).fingerprint().to_owned()),
        ("a, version 1: Undoable, no_compensation", without.fingerprint().to_owned()),
        ("the same for another reason", other.fingerprint().to_owned()),
        ("a, version 1: Forward", forward.fingerprint().to_owned()),
        ("a, version 1: Undoable, pivot Pivot, Forward", pivot.fingerprint().to_owned()),
        ("a, version 1: LocalUndoable, LocalForward, pivot LocalPivot", local.fingerprint().to_owned()),
    ];
    let lines: String = prints.iter().map(|(saga, print)| format!("{saga} = {print}\n")).collect();
    testkit::golden(v1!("definitions.txt"), &lines);
}

#[test]
fn states_have_the_names_that_are_stored() {
    let mut lines = String::from("# of a saga\n");
    for status in Status::ALL {
        writeln!(lines, "{status:?} = {status}").unwrap();
    }
    lines += "# of a step\n";
    for status in StepStatus::ALL {
        writeln!(lines, "{status:?} = {status}").unwrap();
    }
    let stored = testkit::golden(v1!("states.txt"), &lines);
    let (sagas, steps) = stored.split_once("# of a step\n").unwrap();
    for (line, status) in sagas.lines().skip(1).zip(Status::ALL) {
        assert_eq!(line.rsplit(' ').next().unwrap().parse::<Status>().unwrap(), status);
    }
    for (line, status) in steps.lines().zip(StepStatus::ALL) {
        assert_eq!(line.rsplit(' ').next().unwrap().parse::<StepStatus>().unwrap(), status);
    }
}
