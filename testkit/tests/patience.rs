//! A test process that hangs.

use std::process::Command;

const HANG: &str = "PROBITY_TESTKIT_HANG";

/// Hangs when it is told to; on its own it does not.
#[test]
fn one_that_waits_for_ever() {
    if std::env::var(HANG).is_ok() {
        testkit::time_limit();
        std::thread::park();
        panic!("nobody unparks it");
    }
}

#[test]
fn a_process_that_hangs_is_ended_and_names_the_test() {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "one_that_waits_for_ever", "--nocapture", "--test-threads=2"]);
    command.env(HANG, "yes").env("PROBITY_TEST_LIMIT_SECONDS", "1");
    let mut program = testkit::Program::spawn(command);
    assert!(!program.wait().success());
    let output = program.output();
    assert!(output.contains("so a test hangs"), "{output}");
    if cfg!(target_os = "linux") {
        assert!(output.contains("one_that_waits"), "{output}");
    }
}
