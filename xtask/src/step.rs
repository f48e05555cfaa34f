//! Steps: named commands that run one after the other. A job stops at the first that fails, or tries each of them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::say;
use crate::workspace;

/// One command of a job: of `cargo`, or of `rustup` where another toolchain is needed.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    name: &'static str,
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Step {
    /// `words` are the arguments of `cargo`, parted by spaces.
    pub(crate) fn cargo(name: &'static str, words: &str) -> Step {
        let arguments = words.split_whitespace().map(String::from).collect();
        Step { name, program: "cargo", arguments, environment: Vec::new() }
    }

    /// `words` are the arguments of the nightly `cargo`.
    pub(crate) fn nightly_cargo(name: &'static str, words: &str) -> Step {
        Step { program: "rustup", ..Step::cargo(name, &format!("run nightly cargo {words}")) }
    }

    /// Chooses these packages.
    pub(crate) fn packages<S: AsRef<str>>(mut self, names: &[S]) -> Step {
        // Before `--`, after which the arguments are those of another program.
        let at = self.arguments.iter().position(|word| word == "--").unwrap_or(self.arguments.len());
        let chosen = names.iter().flat_map(|name| ["-p".to_owned(), name.as_ref().to_owned()]);
        self.arguments.splice(at..at, chosen);
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Step {
        self.environment.push((name, value.into()));
        self
    }

    /// The command that runs only this step.
    pub(crate) fn as_typed(&self) -> String {
        let environment =
            self.environment.iter().map(|(name, value)| format!("{name}='{value}' ")).collect::<String>();
        format!("{environment}{} {}", self.program, self.arguments.join(" "))
    }

    fn command(&self) -> Command {
        let mut command = match self.program {
            "cargo" => workspace::cargo(),
            program => workspace::command(program),
        };
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }
}

/// Times of the steps done so far.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    done: Vec<(String, Duration)>,
}

impl Progress {
    pub(crate) fn start() -> Progress {
        Progress { started: now(), done: Vec::new() }
    }

    /// Runs one step, with its output shown as it comes.
    ///
    /// The error of a failed step is the command that repeats it.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), String> {
        let typed = step.as_typed();
        say::line(&format!("\n==> {}: {typed}", step.name));
        self.time(step.name, || match step.command().status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{} failed ({status}). To repeat only this:\n\n  {typed}", step.name)),
            Err(error) => Err(format!("failed to run {}: {error}", step.program)),
        })
    }

    /// Runs what is not a command of its own.
    pub(crate) fn call(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        say::line(&format!("\n==> {name}"));
        self.time(name, work)
    }

    /// Runs each step, also after one that failed, and shows what took how long. The error names every step that failed.
    pub(crate) fn each(mut self, steps: &[Step]) -> Result<(), String> {
        let failed: Vec<String> = steps.iter().filter_map(|step| self.step(step).err()).collect();
        self.summary();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n")) }
    }

    /// Shows what took how long.
    pub(crate) fn summary(&self) {
        say::line("");
        for (name, took) in &self.done {
            say::line(&format!("{:>7}  {name}", seconds(*took)));
        }
        say::line(&format!("{:>7}  in all", seconds(now() - self.started)));
    }

    fn time(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let started = now();
        let result = work();
        let took = now() - started;
        if result.is_ok() {
            say::line(&format!("    {name}: ok, {}", seconds(took)));
        }
        self.done.push((name.to_owned(), took));
        result
    }
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

#[expect(clippy::disallowed_methods, reason = "times shown to a person; nothing is decided by them")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_chosen_before_the_arguments_of_the_other_program() {
        let step = Step::cargo("clippy", "clippy --locked -- -D warnings").packages(&["one", "two"]);
        assert_eq!(step.as_typed(), "cargo clippy --locked -p one -p two -- -D warnings");
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        let step = Step::cargo("rustdoc", "doc --no-deps").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.as_typed(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn a_failing_step_stops_with_the_command_that_repeats_it() {
        let error =
            Progress::start().step(&Step::cargo("nonsense", "no-such-command")).expect_err("no such command");
        assert!(error.ends_with("cargo no-such-command"), "{error}");
    }

    #[test]
    fn each_step_is_tried_and_every_failure_is_named() {
        let steps = ["no-such-command", "--version", "no-other-command"];
        let steps = steps.map(|words| Step::cargo("nonsense", words));
        let error = Progress::start().each(&steps).expect_err("two of three fail");
        assert_eq!(error.matches("cargo no-such-command").count(), 1, "{error}");
        assert!(error.ends_with("cargo no-other-command") && !error.contains("--version"), "{error}");
        assert_eq!(Progress::start().each(&steps[1..2]), Ok(()));
    }

    #[test]
    fn times_are_shown_with_a_tenth() {
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
    }
}
