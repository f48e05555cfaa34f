//! `cargo xtask chaos`: tests that choose at random, run much longer than a change should have to wait for.
//!
//! The same tests run with smaller numbers in `cargo xtask test`. A new long run is a line of [`RUNS`] and a weekly job: a test that takes
//! its choices from `testkit::seed` and reads its numbers from the environment. Three runs are of
//! another kind: `flakes` repeats all tests, `fuzz` runs the fuzz targets, and `mutants` edits the code under the tests.

mod flakes;
mod fuzz;
mod mutants;

use crate::services;
use crate::step::{Progress, Step};

/// A test, and what makes it long.
struct Run {
    name: &'static str,
    /// The thing that happens, as a phrase.
    what: &'static str,
    /// The arguments of `cargo`.
    cargo: &'static str,
    longer: &'static [(&'static str, &'static str)],
}

const RUNS: &[Run] = &[
    Run {
        name: "idempotency-kills",
        what: "2000 workers ended by kill -9 on PostgreSQL, 2000 on Redis; no key is paid twice",
        cargo: "test --locked -p probity-idempotency --all-features --test processes kill::",
        longer: &[("PROBITY_TEST_KILLS", "2000")],
    },
    Run {
        name: "saga-kills",
        what: "200 workers killed, or frozen (one for a minute) and woken again; every saga ends, and no effect is doubled",
        cargo: "test --locked -p probity-saga --all-features --test kill",
        longer: &[("PROBITY_TEST_KILLS", "200"), ("PROBITY_TEST_FREEZE_SECONDS", "60")],
    },
    Run {
        name: "outages",
        what: "1000 rounds in which services and databases are away while payments, refunds and withdrawals run; then the books",
        cargo: "test --locked -p payment-platform --test outages -- --nocapture",
        longer: OUTAGES,
    },
    Run {
        name: "outages-postgres",
        what: "the same with a PostgreSQL server for each service, which is killed or frozen",
        cargo: "test --locked -p payment-platform --features postgres --test outages -- --nocapture",
        longer: OUTAGES,
    },
    Run {
        name: "probes",
        what: "requests that the documents of three services invite, with other choices than the tests make",
        cargo: "test --locked -p order-service -p channel-adapter -p payment-gateway every_answer",
        longer: &[],
    },
];

const OUTAGES: &[(&str, &str)] = &[
    ("PROBITY_TEST_ROUNDS", "1000"),
    ("PROBITY_TEST_SECOND_MS", "20"),
    ("PROBITY_TEST_LIMIT_SECONDS", "14400"),
];

/// Runs what `words` choose: a name, or all; `--seed N` makes the choices of an earlier run again.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    match words {
        ["flakes", rest @ ..] => return flakes::run(rest),
        ["fuzz", rest @ ..] => return fuzz::run(rest),
        ["mutants", rest @ ..] => return mutants::run(rest),
        _ => {}
    }
    let (name, seed) = parse(words)?;
    let chosen: Vec<&Run> = RUNS.iter().filter(|run| name.is_none_or(|name| name == run.name)).collect();
    if chosen.is_empty() {
        return Err(format!("no such run: {}\n\n{}", name.unwrap_or_default(), list()));
    }
    let seed = seed.unwrap_or_else(testkit::seed);
    let mut progress = Progress::start();
    progress.call("the servers the tests need", services::install)?;
    crate::say::line("\nTo make the same choices again:\n");
    for run in &chosen {
        crate::say::line(&format!("  cargo xtask chaos {} --seed {seed}\n    {}", run.name, run.what));
    }
    progress.each(&chosen.iter().map(|run| step(run, seed)).collect::<Vec<_>>())
}

/// The runs, for people.
pub(crate) fn list() -> String {
    let line = |run: &Run| format!("  cargo xtask chaos {:<18}  {}", run.name, run.what);
    // These take hours or need tools of their own, so they run only by name.
    let by_name = [
        ("flakes", "every test binary 40 times, to find those that depend on pace"),
        ("fuzz", "the fuzz targets for five minutes each; needs cargo-fuzz and the nightly compiler"),
        (
            "mutants",
            "the pure cores with one edit at a time, to find rules without a test; needs cargo-mutants",
        ),
    ];
    let by_name = by_name.map(|(name, what)| format!("  cargo xtask chaos {name:<18}  {what}"));
    RUNS.iter().map(line).chain(by_name).collect::<Vec<_>>().join("\n")
}

fn step(run: &Run, seed: u64) -> Step {
    let step = Step::cargo(run.name, run.cargo).env("PROBITY_TEST_SEED", seed.to_string());
    // An hour before a test counts as one that hangs.
    let step = step.env("PROBITY_TEST_LIMIT_SECONDS", "3600");
    run.longer.iter().fold(step, |step, (name, value)| step.env(name, *value))
}

fn parse<'a>(words: &[&'a str]) -> Result<(Option<&'a str>, Option<u64>), String> {
    match words {
        [] => Ok((None, None)),
        ["--seed", seed] => Ok((None, Some(number(seed)?))),
        [name, "--seed", seed] => Ok((Some(name), Some(number(seed)?))),
        [name] if !name.starts_with('-') => Ok((Some(name), None)),
        _ => Err(format!("cargo xtask chaos [NAME] [--seed N]\n\n{}", list())),
    }
}

fn number(seed: &str) -> Result<u64, String> {
    seed.parse().map_err(|_| format!("a seed is a number from 0 to {}, not {seed:?}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_seed_may_be_given() {
        assert_eq!(parse(&[]), Ok((None, None)));
        assert_eq!(parse(&["kills"]), Ok((Some("kills"), None)));
        assert_eq!(parse(&["kills", "--seed", "7"]), Ok((Some("kills"), Some(7))));
        assert_eq!(parse(&["--seed", "7"]), Ok((None, Some(7))));
        assert!(parse(&["--seed"]).is_err() && parse(&["kills", "--seed", "x"]).is_err());
        assert!(parse(&["--sead", "7"]).is_err());
    }

    #[test]
    fn a_name_that_is_not_in_the_table_is_an_error_that_shows_the_table() {
        let error = run(&["no-such-run", "--seed", "1"]).expect_err("no such run");
        assert!(error.contains("idempotency-kills"), "{error}");
    }

    #[test]
    fn outages_are_played_on_both_databases() {
        let on = |feature: &str| {
            let runs = RUNS.iter().filter(|run| run.cargo.contains("--test outages"));
            runs.filter(|run| run.cargo.contains(feature)).count()
        };
        assert_eq!((on(""), on("--features postgres")), (2, 1));
    }

    #[test]
    fn every_run_is_a_weekly_job() {
        let jobs = std::fs::read_to_string(crate::workspace::root().join(".github/workflows/weekly.yml"));
        let jobs = jobs.expect("the weekly jobs");
        let (_, jobs) = jobs.split_once("run: [").expect("a list of runs");
        let listed: Vec<_> = jobs.split(']').next().unwrap_or_default().split(", ").collect();
        assert_eq!(listed, RUNS.iter().map(|run| run.name).collect::<Vec<_>>());
    }

    #[test]
    fn every_run_is_told_its_seed() {
        for run in RUNS {
            assert!(
                format!("{:?}", step(run, 42)).contains("(\"PROBITY_TEST_SEED\", \"42\")"),
                "{}",
                run.name
            );
        }
    }
}
