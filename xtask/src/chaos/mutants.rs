//! `cargo xtask chaos mutants`: edits the pure cores in every way that `cargo mutants` knows, one edit at a time, and says
//! which edits no test notices.
//!
//! An edit that survives is a rule without a test, or a line without a purpose. The cores are state machines, classification,
//! fingerprints and parsers: code without IO, whose tests are quick. `--list` shows the edits, and `--only TEXT` chooses
//! those of the files whose path contains the text.

use std::process::Command;

use crate::step::{Progress, Step};
use crate::workspace;

const USAGE: &str = "cargo xtask chaos mutants [--only TEXT] [--list]

  --only TEXT   only files whose path contains TEXT, such as idempotency or scan.rs
  --list        show the edits and run nothing";

/// Code without IO, and the tests that must notice an edit of it.
struct Core {
    package: &'static str,
    /// Files, as globs from the workspace's root.
    files: &'static [&'static str],
    /// The arguments of `cargo test` that choose the tests.
    tests: &'static str,
}

const CORES: &[Core] = &[
    Core {
        package: "probity-txn",
        files: &[
            "txn/src/classify.rs",
            "txn/src/sqlstate.rs",
            "txn/src/backend/postgres/classify.rs",
            "txn/src/backend/sqlite/classify.rs",
            "txn/src/tx/statement/*.rs",
        ],
        tests: "--lib",
    },
    Core {
        package: "probity-idempotency",
        files: &["idempotency/src/core/*.rs", "idempotency/src/http/fingerprint/*.rs"],
        tests: "--lib --test wire",
    },
    Core {
        package: "probity-saga",
        files: &["saga/src/machine.rs", "saga/src/machine/*.rs"],
        tests: "--lib --test engine",
    },
];

/// The choices of the command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan<'a> {
    only: &'a str,
    list: bool,
}

/// Runs it.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let plan = parse(words)?;
    if !is_installed() {
        return Err(
            "cargo-mutants is not installed; install it with: cargo install --locked cargo-mutants".into()
        );
    }
    let mut progress = Progress::start();
    let mut survived = Vec::new();
    for core in CORES {
        let files: Vec<&str> = core.files.iter().copied().filter(|file| file.contains(plan.only)).collect();
        if files.is_empty() {
            continue;
        }
        // Every core is tried, also after one whose edits survive.
        if let Err(error) = progress.step(&step(core, &files, plan.list)) {
            survived.push(error);
        }
    }
    progress.summary();
    if survived.is_empty() { Ok(()) } else { Err(survived.join("\n\n")) }
}

fn step(core: &Core, files: &[&str], list: bool) -> Step {
    let files: Vec<String> = files.iter().map(|file| format!("--file {file}")).collect();
    let output = workspace::root().join("target/mutants").join(core.package);
    let mode = if list { "--list".to_owned() } else { format!("--output {}", output.display()) };
    // The bodies of the fuzz targets are tests.
    let words = format!(
        "mutants --package {} {} --exclude **/fuzzing.rs --exclude **/tests.rs --all-features --colors never {mode} -- {}",
        core.package,
        files.join(" "),
        core.tests
    );
    Step::cargo("edits of a pure core", &words)
}

fn is_installed() -> bool {
    let mut command: Command = workspace::cargo();
    command.args(["mutants", "--version"]).output().is_ok_and(|output| output.status.success())
}

fn parse<'a>(words: &[&'a str]) -> Result<Plan<'a>, String> {
    match words {
        [] => Ok(Plan::default()),
        ["--list", rest @ ..] => Ok(Plan { list: true, ..parse(rest)? }),
        ["--only", text, rest @ ..] => Ok(Plan { only: text, ..parse(rest)? }),
        _ => Err(USAGE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_a_mere_list_can_be_chosen() {
        assert_eq!(parse(&[]), Ok(Plan::default()));
        assert_eq!(parse(&["--only", "key", "--list"]), Ok(Plan { only: "key", list: true }));
        assert!(parse(&["--only"]).is_err() && parse(&["key"]).is_err());
    }

    #[test]
    fn every_core_has_its_files_where_it_says() {
        for file in CORES.iter().flat_map(|core| core.files) {
            let path = workspace::root().join(file.trim_end_matches("*.rs"));
            assert!(path.exists(), "{file}");
        }
    }
}
