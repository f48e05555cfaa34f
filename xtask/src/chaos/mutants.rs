//! `cargo xtask chaos mutants`: edits the pure cores in every way that `cargo mutants` knows, one edit at a time, and says
//! which edits no test notices.
//!
//! An edit that survives is a rule without a test, or a line without a purpose. The pure cores are those of the rule `pure`
//! of `cargo xtask tidy`: state machines, classification, fingerprints and parsers, code without IO whose tests are quick.
//! `--list` shows the edits, and `--only TEXT` chooses those of the files whose path contains the text.

use std::fs;
use std::path::PathBuf;

use crate::step::{Progress, Step};
use crate::{tidy, workspace};

const USAGE: &str = "cargo xtask chaos mutants [--only TEXT] [--list]

  --only TEXT   only files whose path contains TEXT, such as idempotency or scan.rs
  --list        show the edits and run nothing";

/// Each published crate, and the arguments of `cargo test` that choose the tests that must notice an edit of its cores.
const TESTS: [(&str, &str); 3] = [
    ("probity-txn", "--lib"),
    ("probity-idempotency", "--lib --test wire"),
    ("probity-saga", "--lib --test engine"),
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
    let steps = steps(&plan, &tidy::pure_files()?)?;
    if !workspace::succeeds(workspace::cargo().args(["mutants", "--version"])) {
        return Err(
            "cargo-mutants is not installed; install it with: cargo install --locked cargo-mutants".into()
        );
    }
    let output = output();
    fs::create_dir_all(&output).map_err(|error| format!("failed to create {}: {error}", output.display()))?;
    Progress::start().each(&steps)
}

/// A step for each crate that has pure files of the plan.
fn steps(plan: &Plan<'_>, pure: &[String]) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for (package, tests) in TESTS {
        let sources = format!("{}/src/", workspace::folder(package));
        let is_chosen = |file: &&String| file.starts_with(&sources) && file.contains(plan.only);
        let files: String = pure.iter().filter(is_chosen).map(|file| format!(" --file {file}")).collect();
        if !files.is_empty() {
            steps.push(step(package, &files, tests, plan.list));
        }
    }
    if steps.is_empty() {
        return Err(format!("no pure file has {:?} in its path\n\n{USAGE}", plan.only));
    }
    Ok(steps)
}

fn step(package: &str, files: &str, tests: &str, list: bool) -> Step {
    let output = output().join(package);
    let mode = if list { "--list".to_owned() } else { format!("--output {}", output.display()) };
    // The bodies of the fuzz targets are tests. The tests are quick: one that takes this long waits for ever.
    let words = format!(
        "mutants --package {package}{files} --exclude **/fuzzing.rs --exclude **/tests.rs --exclude-re tests:: \
         --all-features --colors never --minimum-test-timeout 300 {mode} -- {tests}"
    );
    // The edited copy of the workspace has a target folder of its own. In a shared one, what was built from an edit would
    // count as built from this workspace.
    Step::cargo("edits of a pure core", &words).env("CARGO_TARGET_DIR", "target")
}

/// The folder of the reports. Cargo's own target folder may be elsewhere.
fn output() -> PathBuf {
    workspace::root().join("target/mutants")
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

    /// The files that a choice edits in this tree, with the option before each.
    fn edited(only: &str) -> String {
        let steps = steps(&Plan { only, list: true }, &tidy::pure_files().expect("a tree")).expect("files");
        steps.iter().map(|step| step.as_typed()).collect()
    }

    #[test]
    fn a_part_of_a_path_chooses_files_and_one_of_no_path_is_an_error() {
        let scan = "cargo mutants --package probity-txn --file txn/src/tx/statement/scan.rs --exclude";
        assert!(edited("scan.rs").contains(scan), "{}", edited("scan.rs"));
        assert!(run(&["--only", "nonsense"]).is_err_and(|error| error.contains("no pure file")));
    }

    #[test]
    fn every_pure_file_is_edited_at_any_depth() {
        let (all, edited) = (tidy::pure_files().expect("a tree"), edited(""));
        for file in &all {
            assert!(edited.contains(&format!(" --file {file} ")), "{file}");
        }
        assert!(all.iter().any(|file| file == "saga/src/core/state/back.rs"), "{all:?}");
        assert!(all.iter().any(|file| file == "idempotency/src/http/fingerprint.rs"), "{all:?}");
    }
}
