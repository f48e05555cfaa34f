//! `cargo xtask ci`: what a fresh machine must pass. A new job is a line here, and nowhere else.

use crate::step::{Progress, Step};
use crate::workspace::PUBLISHED;
use crate::{test, tidy};

/// Runs it.
pub(crate) fn run() -> Result<(), String> {
    let mut progress = Progress::start();
    progress.call("tidy", tidy::run)?; // first, because it takes no time
    test::run_in(&mut progress)?;
    progress.step(&package())?;
    // What it measures here means nothing, but it still runs.
    progress.step(&Step::cargo("benches, one short round", "run --locked -p benches -- all --quick"))?;
    progress.summary();
    Ok(())
}

/// Packs the published crates and builds each from its package alone, as a user's cargo will.
fn package() -> Step {
    // A tree with changes can be checked too; what is published comes from a clean one. A package is built without the
    // workspace's profiles; with the same debug information, dependencies are shared with the tests.
    let step = Step::cargo("package", "package --locked --allow-dirty").packages(&PUBLISHED);
    step.env("CARGO_PROFILE_DEV_DEBUG", "0")
}
