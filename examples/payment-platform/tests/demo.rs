//! The README's first command, as a user runs it.
#![cfg(not(feature = "postgres"))]
#![expect(clippy::expect_used, reason = "a test that cannot start the program has failed")]

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use testkit::Program;

fn platform(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payment-platform"));
    command.args(arguments);
    command
}

/// Runs a command to its end. Returns its status and what it wrote.
fn run(command: Command) -> (Option<i32>, String) {
    let mut program = Program::spawn(command);
    let status = program.wait_within(Duration::from_mins(5));
    let status = status.unwrap_or_else(|| panic!("it did not end; it wrote:\n{}", program.output()));
    (status.code(), program.output())
}

#[test]
fn the_story_holds_and_leaves_databases_that_operators_can_query() {
    let folder = testkit::temp_dir();
    let data = folder.path().join("state");
    let (code, story) = run(platform(&["demo", "--data", data.to_str().expect("a readable path")]));
    assert_eq!(code, Some(0), "{story}");
    assert!(story.contains("\ncharges per payment: 1\n"), "{story}");
    assert!(story.contains("kill -9"), "{story}");
    assert!(!story.contains('\u{1b}'), "a pipe gets plain text");
    assert!(data.join("payment-gateway.sqlite3").exists());

    // Told again over the same databases, nothing could be counted from zero.
    let (code, complaints) = run(platform(&["demo", "--data", data.to_str().expect("a readable path")]));
    assert_eq!(code, Some(1));
    assert!(complaints.contains("already holds databases"), "{complaints}");
}

#[test]
fn help_explains_and_a_mistake_is_named() {
    let (code, text) = run(platform(&["demo", "--help"]));
    assert_eq!(code, Some(0));
    assert!(text.contains("cargo demo -- --serve"));
    let (code, complaint) = run(platform(&["demo", "--sreve"]));
    assert_eq!(code, Some(1));
    assert!(complaint.starts_with("`--sreve` is not an argument"), "{complaint}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_nothing_is_left() {
    let folder = testkit::temp_dir();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "not a folder").expect("write");
    let mut command = platform(&["demo"]);
    command.env("TMPDIR", &file);
    let (code, complaint) = run(command);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("cannot write to") && complaint.contains("--data"), "{complaint}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
}

#[test]
fn serving_names_a_port_in_use_and_prints_commands_that_work_as_printed() {
    let folder = testkit::temp_dir();
    let (first, taken) = ports();
    let serve = || {
        let mut command = platform(&["demo", "--serve", "--ports", &first.to_string(), "--seconds", "60"]);
        command.env("TMPDIR", folder.path());
        command
    };
    let (code, complaint) = run(serve());
    assert_eq!(code, Some(1));
    assert!(complaint.contains(&(first + 4).to_string()), "{complaint}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0, "nothing is left behind");
    drop(taken);

    let mut serving = Program::spawn(serve());
    serving.wait_for_line("Each signature");
    let story = serving.output();
    let commands: Vec<&str> = story.lines().filter(|line| line.starts_with("curl")).collect();
    let answers: Vec<String> = commands.iter().map(|line| printed(line)).collect();
    assert_eq!(answers.len(), 4, "{commands:?}");
    assert!(answers[0].starts_with("HTTP/1.1 201"), "{}", answers[0]);
    assert!(answers[1].contains("idempotent-replayed: true"), "{}", answers[1]);
    assert!(answers[2].starts_with("HTTP/1.1 200") && answers[2].contains("\"success\""), "{}", answers[2]);
    assert!(answers[3].contains("\"status\":\"ok\""), "{}", answers[3]);
}

/// The first of five ports that no process listens on, and the last of them, taken.
fn ports() -> (u16, TcpListener) {
    let taken = |first: u16| Some((first, TcpListener::bind(("127.0.0.1", first + 4)).ok()?));
    let mut found = std::iter::repeat_with(|| taken(testkit::free_port())).take(100).flatten();
    found.next().expect("two free ports of two hundred")
}

/// Runs a printed command in a shell and returns its output.
fn printed(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    assert!(
        output.status.success(),
        "the printed commands need curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
