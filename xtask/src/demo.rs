//! `cargo demo`: builds the platform with visible progress, then becomes it.
//!
//! The story itself is told by `payment-platform demo`. This only gets us there on a fresh clone: it looks for a
//! working C compiler first, because without one the build of SQLite fails after minutes, with a page of noise.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::workspace;

const PLATFORM: &str = "payment-platform";

/// Builds and becomes the demo; returns only if that failed.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    // `cargo demo -- --serve` and `cargo demo --serve` are the same.
    let arguments = arguments.strip_prefix(&["--"]).unwrap_or(arguments);
    look_for_c_compiler(&compiler())?;
    let program = build(&[])?;
    // We become the program, so that its exit status and Ctrl-C are its own affair.
    let error = Command::new(&program).arg("demo").args(arguments).exec();
    Err(format!("failed to run {}: {error}", program.display()))
}

/// The compiler that builds SQLite, as the build script will choose it.
fn compiler() -> String {
    std::env::var("CC").ok().filter(|cc| !cc.trim().is_empty()).unwrap_or_else(|| String::from("cc"))
}

/// Compiles two lines of C in memory: a compiler without the headers of the system is as good as none.
fn look_for_c_compiler(compiler: &str) -> Result<(), String> {
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("cc"));
    command.args(words).args(["-x", "c", "-fsyntax-only", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let complaint = match command.spawn() {
        Err(error) => error.to_string(),
        Ok(mut child) => {
            if let Some(mut source) = child.stdin.take() {
                let _its_complaint_says_why =
                    source.write_all(b"#include <stdio.h>\nint main(void) { return 0; }\n");
            }
            match child.wait_with_output() {
                Ok(answer) if answer.status.success() => return Ok(()),
                Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.stderr).trim()),
                Err(error) => error.to_string(),
            }
        }
    };
    Err(format!(
        "the demo needs a C compiler, because it builds SQLite, and {compiler:?} does not work:\n\n  {complaint}\n\n\
         Install one, then repeat:\n  \
         Debian, Ubuntu:  apt-get install gcc libc6-dev\n  \
         Fedora:          dnf install gcc\n  \
         macOS:           xcode-select --install   (or: brew install gcc)\n\
         If CC is set in the environment, it must name a compiler that works."
    ))
}

/// Builds the platform and gives the path of its program, which cargo alone knows: the target folder can be set in
/// several places.
pub(crate) fn build(features: &[&str]) -> Result<PathBuf, String> {
    let mut command = workspace::cargo();
    command.args(["build", "--package", PLATFORM, "--bin", PLATFORM]).args(features);
    let mut made = workspace::build(command)?.into_iter().filter(|artifact| artifact.target.name == PLATFORM);
    let program = made.find_map(|artifact| artifact.executable);
    program.map(PathBuf::from).ok_or_else(|| format!("cargo built {PLATFORM}, but did not say where"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_named_with_the_commands_that_install_one() {
        let message =
            look_for_c_compiler("no-such-compiler-4711 -O2").expect_err("there is no such compiler");
        for part in ["no-such-compiler-4711", "apt-get install", "xcode-select --install", "brew install"] {
            assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
    }

    #[test]
    fn a_compiler_that_fails_is_as_good_as_none() {
        let message = look_for_c_compiler("false").expect_err("`false` compiles nothing");
        assert!(message.contains("\"false\" does not work"), "{message}");
    }

    #[test]
    fn the_compiler_of_this_machine_works() {
        look_for_c_compiler(&compiler()).expect("this very test was linked by it");
    }
}
