//! `cargo xtask test`: everything a change must pass.
//!
//! The order is from cheap to dear, and the features of the steps are chosen so that dependencies are compiled twice
//! only: once to be checked, once to be run. The examples are tested twice, because their feature `postgres` moves them
//! from SQLite to PostgreSQL.

use crate::components;
use crate::disk;
use crate::services;
use crate::step::{Progress, Step};
use crate::workspace::{self, PUBLISHED};

/// Runs it.
pub(crate) fn run() -> Result<(), String> {
    let mut progress = Progress::start();
    run_in(&mut progress)?;
    progress.summary();
    Ok(())
}

/// Runs it as the part of a longer job.
pub(crate) fn run_in(progress: &mut Progress) -> Result<(), String> {
    let workspace = workspace::metadata()?;
    progress.call("room on the disk", || disk::has_room(workspace.target_directory.as_std_path()))?;
    progress.call("rustfmt and clippy", components::install)?;
    progress.call("the servers the tests need", services::install)?;
    let examples = workspace::examples(&workspace);
    for step in steps(&examples, &workspace::published_features(&workspace)) {
        progress.step(&step)?;
    }
    Ok(())
}

fn steps(examples: &[String], features: &[(&str, &str)]) -> Vec<Step> {
    let everything = "--locked --workspace --all-features";
    // The guide comes along because it asks for all features of our crates: so the dependencies stay as they were.
    let on_sqlite: Vec<&str> = examples.iter().map(String::as_str).chain(["probity-docs"]).collect();
    let mut steps = vec![
        Step::cargo("formatting", "fmt --all --check"),
        Step::cargo("clippy, all features", &format!("clippy {everything} --all-targets -- -D warnings")),
        Step::cargo("clippy, examples on SQLite", "clippy --locked --all-targets -- -D warnings")
            .packages(&on_sqlite),
    ];
    for published in PUBLISHED {
        let step = Step::cargo("clippy, default features", "clippy --locked --all-targets -- -D warnings");
        steps.push(step.packages(&[published]));
    }
    for (published, feature) in features {
        let words = format!("clippy --locked --lib --features {feature} -- -D warnings");
        steps.push(Step::cargo("clippy, one feature", &words).packages(&[published]));
    }
    // A run of minutes shows every failure it can (`--no-fail-fast`), not the first one.
    steps.extend([
        // There are no examples to document; naming them makes cargo choose the features that the tests have.
        Step::cargo("rustdoc", &format!("doc {everything} --no-deps --lib --examples"))
            .env("RUSTDOCFLAGS", "-D warnings"),
        Step::cargo("rustdoc of xtask", "doc --locked -p xtask --no-deps").env("RUSTDOCFLAGS", "-D warnings"),
        Step::cargo(
            "tests, examples on PostgreSQL",
            &format!("test {everything} --no-fail-fast --lib --bins --tests"),
        ),
        Step::cargo("doctests", &format!("test {everything} --no-fail-fast --doc")),
        Step::cargo("tests, examples on SQLite", "test --locked --no-fail-fast --lib --bins --tests")
            .packages(&on_sqlite),
    ]);
    steps
}
