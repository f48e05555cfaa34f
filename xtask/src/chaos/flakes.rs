//! `cargo xtask chaos flakes`: finds tests whose outcome depends on the pace of the machine.
//!
//! It builds what `cargo xtask test` builds, and runs each test binary many times: by itself, then in whole rounds of
//! all binaries while the machine is idle, then in whole rounds while every core is busy with something else. A test
//! that fails once has failed: nothing is repeated to make it pass. A run that does not end within an hour has failed, too.
//! The output of each failed run is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cargo_metadata::{Artifact, Metadata};
use testkit::Program;

use crate::{say, services, workspace};

const USAGE: &str = "cargo xtask chaos flakes [--alone N] [--suite N] [--only TEXT]

  --alone N     runs of each test binary by itself (30)
  --suite N     rounds of all binaries on an idle machine, and as many with every core busy (5)
  --only TEXT   only binaries whose name contains TEXT, such as probity-txn or http";

/// The longest time of a run. It is above the limit of `testkit::time_limit`, which names the tests that hang.
const LIMIT: Duration = Duration::from_hours(1);

/// The choices of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    alone: u32,
    suite: u32,
    only: String,
}

/// A compiled test binary and what it needs to run as cargo would run it.
#[derive(Debug)]
struct Binary {
    /// `package/target`.
    name: String,
    program: PathBuf,
    folder: PathBuf,
    package: String,
    version: String,
}

/// A run that failed.
#[derive(Debug)]
struct Failure {
    what: String,
    tests: Vec<String>,
    log: PathBuf,
}

/// Runs what `words` choose, and fails if one run of one binary failed.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let plan = parse(words)?;
    let metadata = workspace::metadata()?;
    if !has_binary(&metadata, &plan.only) {
        return Err(format!("no test binary has {:?} in its name\n\n{USAGE}", plan.only));
    }
    services::install()?;
    let logs = metadata.target_directory.as_std_path().join("flakes");
    fs::create_dir_all(&logs).map_err(|error| format!("failed to create {}: {error}", logs.display()))?;
    let mut failures = Vec::new();
    for (set, arguments) in sets(&metadata) {
        // The second build replaces programs of the first, so the tests of each run before the next is built.
        let binaries = build(&metadata, &arguments)?;
        let chosen: Vec<_> = binaries.iter().filter(|binary| binary.name.contains(&plan.only)).collect();
        say::line(&format!("\n==> {set}: {} test binaries", chosen.len()));
        for binary in &chosen {
            repeat(plan.alone, &format!("{set}, alone"), &[binary], &logs, &mut failures)?;
        }
        repeat(plan.suite, &format!("{set}, all, idle"), &chosen, &logs, &mut failures)?;
        let load = Load::on_every_core();
        repeat(plan.suite, &format!("{set}, all, every core busy"), &chosen, &logs, &mut failures)?;
        drop(load);
    }
    conclude(&failures)
}

fn parse(words: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan { alone: 30, suite: 5, only: String::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value\n\n{USAGE}"))?;
        let number = || value.parse().map_err(|_| format!("{word} needs a number, not {value:?}\n\n{USAGE}"));
        match *word {
            "--alone" => plan.alone = number()?,
            "--suite" => plan.suite = number()?,
            "--only" => plan.only = (*value).to_owned(),
            _ => return Err(format!("no such option: {word}\n\n{USAGE}")),
        }
    }
    Ok(plan)
}

/// Tells whether the name of some test binary contains `text`.
fn has_binary(metadata: &Metadata, text: &str) -> bool {
    metadata.packages.iter().any(|package| {
        let tested = package.targets.iter().filter(|target| target.test);
        tested.map(|target| name(&package.name, &target.name)).any(|name| name.contains(text))
    })
}

fn name(package: &str, target: &str) -> String {
    format!("{package}/{target}")
}

/// The two builds of `cargo xtask test`: the examples are tested on both databases.
fn sets(metadata: &Metadata) -> [(&'static str, Vec<String>); 2] {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let examples = workspace::examples(metadata);
    let on_sqlite = examples.into_iter().flat_map(|name| ["-p".to_owned(), name]);
    [
        ("everything, examples on PostgreSQL", words("--workspace --all-features")),
        ("examples on SQLite", on_sqlite.collect()),
    ]
}

fn build(metadata: &Metadata, arguments: &[String]) -> Result<Vec<Binary>, String> {
    let mut command = workspace::cargo();
    command.args(["test", "--locked", "--lib", "--bins", "--tests", "--no-run"]).args(arguments);
    let artifacts = workspace::build(command)?;
    Ok(artifacts.into_iter().filter_map(|artifact| test_binary(metadata, artifact)).collect())
}

fn test_binary(metadata: &Metadata, artifact: Artifact) -> Option<Binary> {
    let program = artifact.executable.filter(|_| artifact.profile.test)?;
    let package = metadata.packages.iter().find(|package| package.id == artifact.package_id)?;
    Some(Binary {
        name: name(&package.name, &artifact.target.name),
        program: program.into_std_path_buf(),
        folder: package.manifest_path.parent()?.as_std_path().to_owned(),
        package: package.name.to_string(),
        version: package.version.to_string(),
    })
}

/// Runs all of `binaries`, one after the other, `rounds` times.
fn repeat(
    rounds: u32,
    what: &str,
    binaries: &[&Binary],
    logs: &Path,
    failures: &mut Vec<Failure>,
) -> Result<(), String> {
    let before = failures.len();
    for round in 1..=rounds {
        for binary in binaries {
            failures.extend(once(binary, &format!("{what}, round {round}"), logs, LIMIT)?);
        }
    }
    let name = match binaries {
        [one] => format!(" {}", one.name),
        _ => String::new(),
    };
    say::line(&format!("    {what}{name}: {rounds} rounds, {} failed", failures.len() - before));
    Ok(())
}

/// Runs one binary once, as cargo would.
fn once(binary: &Binary, what: &str, logs: &Path, limit: Duration) -> Result<Option<Failure>, String> {
    let mut command = Command::new(&binary.program);
    command.current_dir(&binary.folder).env("CARGO_MANIFEST_DIR", &binary.folder);
    command.env("CARGO_PKG_NAME", &binary.package).env("CARGO_PKG_VERSION", &binary.version);
    let mut program = Program::spawn(command);
    let status = program.wait_within(limit);
    if status.is_some_and(|status| status.success()) {
        return Ok(None);
    }
    if status.is_none() {
        program.kill9();
    }
    let what = format!("{}: {what}", binary.name);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let log = logs.join(what.chars().map(plain).collect::<String>()).with_extension("log");
    let output = program.output();
    fs::write(&log, &output).map_err(|error| format!("failed to write {}: {error}", log.display()))?;
    let mut tests = failed_tests(&output);
    tests.extend(status.is_none().then(|| format!("did not end within {limit:?}")));
    say::line(&format!("    FAILED {what}: {}", tests.join(", ")));
    Ok(Some(Failure { what, tests, log }))
}

/// The tests that the output of a test binary calls failed.
fn failed_tests(output: &str) -> Vec<String> {
    let name = |line: &str| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned);
    output.lines().filter_map(name).collect()
}

fn conclude(failures: &[Failure]) -> Result<(), String> {
    if failures.is_empty() {
        say::line("\nno run failed.");
        return Ok(());
    }
    let line = |failure: &Failure| {
        format!("  {}\n    {}\n    {}", failure.what, failure.tests.join(", "), failure.log.display())
    };
    let list: Vec<_> = failures.iter().map(line).collect();
    Err(format!(
        "{} runs failed; mend these tests, or what they found:\n\n{}",
        failures.len(),
        list.join("\n")
    ))
}

/// Keeps every core busy until it is dropped.
struct Load {
    over: std::sync::Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on_every_core() -> Load {
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let busy = || {
            let over = std::sync::Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..cores).map(|_| busy()).collect();
        Load { over, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _never_panics = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_and_a_part_of_a_name_may_be_given() {
        let plan = |alone, suite, only: &str| Ok(Plan { alone, suite, only: only.to_owned() });
        assert_eq!(parse(&[]), plan(30, 5, ""));
        assert_eq!(parse(&["--suite", "0", "--only", "http", "--alone", "3"]), plan(3, 0, "http"));
        assert!(parse(&["--alone"]).is_err() && parse(&["--alone", "x"]).is_err());
        assert!(parse(&["--often", "3"]).is_err());
    }

    fn binary(program: &str, folder: &Path) -> Binary {
        Binary {
            name: "package/target".to_owned(),
            program: program.into(),
            folder: folder.to_owned(),
            package: "package".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_part_of_no_name_is_an_error() {
        let metadata = workspace::metadata().expect("this workspace");
        assert!(has_binary(&metadata, "xtask/xtask") && has_binary(&metadata, ""));
        assert!(run(&["--only", "nonsense"]).is_err_and(|error| error.contains("no test binary")));
    }

    #[test]
    fn a_failed_run_keeps_its_output() {
        let folder = testkit::temp_dir();
        let once = |program| {
            let binary = binary(program, folder.path());
            once(&binary, "alone, round 1", folder.path(), LIMIT).expect("it runs")
        };
        let failure = once("false").expect("it fails");
        assert!(failure.log.exists());
        assert!(conclude(&[failure]).is_err_and(|message| message.contains("alone, round 1")));
        assert!(once("true").is_none() && once("/no/such/program").is_some());
    }

    #[test]
    fn a_run_that_hangs_has_failed() {
        let folder = testkit::temp_dir();
        let binary = binary("yes", folder.path());
        let failure = once(&binary, "alone, round 1", folder.path(), Duration::ZERO).expect("it runs");
        let failure = failure.expect("it hangs");
        assert_eq!(failure.tests, ["did not end within 0ns"]);
        assert!(failure.log.exists());
    }

    #[test]
    fn each_failed_round_counts_and_none_is_repeated() {
        let folder = testkit::temp_dir();
        let binary = binary("false", folder.path());
        let mut failures = Vec::new();
        repeat(3, "alone", &[&binary], folder.path(), &mut failures).expect("it runs");
        let rounds: Vec<_> = failures.iter().map(|failure| failure.what.as_str()).collect();
        let round = |number| format!("package/target: alone, round {number}");
        assert_eq!(rounds, [round(1), round(2), round(3)]);
    }

    #[test]
    fn failed_tests_are_read_from_the_output() {
        let output = "running 2 tests\ntest a::b ... ok\ntest c ... FAILED\n\nfailures:\n    c\n";
        assert_eq!(failed_tests(output), ["c"]);
    }

    #[test]
    fn load_ends_with_its_value() {
        drop(Load::on_every_core());
    }
}
