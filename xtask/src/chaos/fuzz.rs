//! `cargo xtask chaos fuzz`: the fuzz targets, each for a while, from the corpora of the crates.
//!
//! The targets and their bodies are described in `fuzz/README.md`. Building them needs a nightly compiler, so they are not
//! a part of `cargo xtask ci`; there the unit tests replay the corpora.

use std::fs;
use std::process::Command;

use crate::step::{Progress, Step};
use crate::workspace;

const USAGE: &str = "cargo xtask chaos fuzz [TARGET] [--minutes N]

  TARGET        a file of fuzz/fuzz_targets without its ending; all of them if none is named
  --minutes N   for how long each runs, from 1 to 10080, a week (5)";

/// A week, in minutes.
const A_WEEK: u64 = 7 * 24 * 60;

/// Each target with the crate whose corpus it starts from.
const TARGETS: &[(&str, &str)] = &[
    ("sql_scanner", "txn"),
    ("key_header", "idempotency"),
    ("recording", "idempotency"),
    ("redis_record", "idempotency"),
    ("request", "idempotency"),
    ("stored_document", "saga"),
    ("saga_row", "saga"),
];

/// Runs it.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let (only, minutes) = parse(words)?;
    let chosen: Vec<_> =
        TARGETS.iter().filter(|(target, _)| only.is_none_or(|only| only == *target)).collect();
    if chosen.is_empty() {
        return Err(USAGE.into());
    }
    if !workspace::succeeds(Command::new("rustup").args(["run", "nightly", "cargo", "fuzz", "--version"])) {
        return Err(
            "cargo-fuzz or the nightly compiler is not installed; install them with:\n\n  rustup toolchain \
                    install nightly --profile minimal && cargo install --locked cargo-fuzz"
                .into(),
        );
    }
    let seconds = minutes * 60;
    let mut steps = Vec::new();
    for (target, krate) in chosen {
        let found = workspace::root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&found)
            .map_err(|error| format!("failed to create {}: {error}", found.display()))?;
        // The first folder takes what is found; the second is the one in git.
        let words = format!(
            "fuzz run {target} fuzz/corpus/{target} {krate}/corpus/{target} -- -max_total_time={seconds}"
        );
        steps.push(Step::nightly_cargo("fuzzing", &words));
    }
    Progress::start().each(&steps)
}

fn parse<'a>(words: &[&'a str]) -> Result<(Option<&'a str>, u64), String> {
    // libFuzzer takes zero seconds for no end.
    let number = |text: &str| match text.parse() {
        Ok(minutes @ 1..=A_WEEK) => Ok(minutes),
        _ => Err(USAGE.to_owned()),
    };
    match words {
        [] => Ok((None, 5)),
        ["--minutes", minutes] => Ok((None, number(minutes)?)),
        [target] if !target.starts_with('-') => Ok((Some(target), 5)),
        [target, "--minutes", minutes] => Ok((Some(target), number(minutes)?)),
        _ => Err(USAGE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_listed_with_its_corpus() {
        let root = workspace::root();
        let written = fs::read_dir(root.join("fuzz/fuzz_targets")).expect("is there");
        let mut written: Vec<String> = written
            .map(|file| file.expect("is listed").file_name().to_string_lossy().replace(".rs", ""))
            .collect();
        let mut listed: Vec<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
        written.sort();
        listed.sort();
        assert_eq!(written, listed);
        assert!(TARGETS.iter().all(|(target, krate)| root.join(krate).join("corpus").join(target).is_dir()));
    }

    #[test]
    fn a_target_and_its_time_can_be_chosen() {
        assert_eq!(parse(&[]), Ok((None, 5)));
        assert_eq!(parse(&["request", "--minutes", "1"]), Ok((Some("request"), 1)));
        assert!(parse(&["--seconds", "1"]).is_err());
        for minutes in ["0", "10081", "18446744073709551615", "-1", "x"] {
            assert!(parse(&["--minutes", minutes]).is_err(), "{minutes}");
        }
    }
}
