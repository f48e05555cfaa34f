//! The README's first command, as a user runs it.
#![cfg(not(feature = "postgres"))]
#![expect(clippy::expect_used, reason = "a test that cannot start the program has failed")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn platform(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payment-platform"));
    command.args(arguments);
    command
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("start the demo");
    (
        status.code(),
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

#[test]
fn the_story_holds_and_leaves_databases_that_operators_can_query() {
    let folder = testkit::temp_dir();
    let data = folder.path().join("state");
    let (code, story, complaints) =
        run(platform(&["demo", "--data", data.to_str().expect("a readable path")]));
    assert_eq!(code, Some(0), "{story}\n{complaints}");
    assert!(story.contains("\ncharges per payment: 1\n"), "{story}");
    assert!(story.contains("kill -9"), "{story}");
    assert!(!story.contains('\u{1b}'), "a pipe gets plain text");
    assert!(data.join("payment-gateway.sqlite3").exists());

    // Told again over the same databases, nothing could be counted from zero.
    let (code, _, complaints) = run(platform(&["demo", "--data", data.to_str().expect("a readable path")]));
    assert_eq!(code, Some(1));
    assert!(complaints.contains("already holds databases"), "{complaints}");
}

#[test]
fn help_explains_and_a_mistake_is_named() {
    let (code, text, _) = run(platform(&["demo", "--help"]));
    assert_eq!(code, Some(0));
    assert!(text.contains("cargo demo -- --serve"));
    let (code, _, complaint) = run(platform(&["demo", "--sreve"]));
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
    let (code, _, complaint) = run(command);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("cannot write to") && complaint.contains("--data"), "{complaint}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
}

/// One test, because there is only one set of usual ports.
#[test]
fn serving_names_a_port_in_use_and_prints_commands_that_work_as_printed() {
    let folder = testkit::temp_dir();
    let serve = |seconds: &str| {
        let mut command = platform(&["demo", "--serve", "--seconds", seconds]);
        command.env("TMPDIR", folder.path()).stdin(Stdio::null());
        command
    };
    let taken = TcpListener::bind("127.0.0.1:40014").expect("this test needs port 40014");
    let (code, _, complaint) = run(serve("5"));
    assert_eq!(code, Some(1));
    assert!(complaint.contains("40014"), "{complaint}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 0, "nothing is left behind");
    drop(taken);

    let mut serving = serve("60").stdout(Stdio::piped()).spawn().expect("start the platform");
    let story = BufReader::new(serving.stdout.take().expect("its output")).lines().map_while(Result::ok);
    let commands: Vec<String> = story
        .take_while(|line| !line.starts_with("Each signature"))
        .filter(|line| line.starts_with("curl"))
        .collect();
    let answers: Vec<String> = commands.iter().map(|line| printed(line)).collect();
    serving.kill().expect("stop the platform");
    serving.wait().expect("reap the platform");
    assert_eq!(answers.len(), 4, "{commands:?}");
    assert!(answers[0].starts_with("HTTP/1.1 201"), "{}", answers[0]);
    assert!(answers[1].contains("idempotent-replayed: true"), "{}", answers[1]);
    assert!(answers[2].starts_with("HTTP/1.1 200") && answers[2].contains("\"success\""), "{}", answers[2]);
    assert!(answers[3].contains("\"status\":\"ok\""), "{}", answers[3]);
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
