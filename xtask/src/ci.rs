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
    progress.summary();
    Ok(())
}

/// Packs the published crates and builds each from its package alone, as a user's cargo will.
fn package() -> Step {
    // A tree with changes can be checked too; what is published comes from a clean one.
    Step::cargo("package", "package --locked --allow-dirty").packages(&PUBLISHED)
}
