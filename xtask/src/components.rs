//! The parts of the Rust toolchain that a minimal installation leaves out.

use std::process::{Command, Stdio};

use crate::{say, workspace};

const NEEDED: [&str; 2] = ["rustfmt", "clippy"];

/// Installs `cargo fmt` and `cargo clippy` by rustup, if they are missing.
pub(crate) fn install() -> Result<(), String> {
    if works("fmt") && works("clippy") {
        return Ok(());
    }
    say::line(&format!("    rustup component add {}", NEEDED.join(" ")));
    let added = Command::new("rustup").args(["component", "add"]).args(NEEDED).stdin(Stdio::null()).status();
    if added.is_ok_and(|status| status.success()) && works("fmt") && works("clippy") {
        return Ok(());
    }
    Err("`cargo fmt` and `cargo clippy` are needed and rustup could not add them; install rustfmt and clippy of this \
         Rust version from where it came (Debian and Ubuntu: apt-get install rustfmt rust-clippy)"
        .to_owned())
}

fn works(tool: &str) -> bool {
    workspace::succeeds(workspace::cargo().args([tool, "--version"]))
}
