//! A test process that hangs.

use testkit::{Program, Worker};

const HANGING: Worker = Worker::named("one_that_waits_for_ever");

/// Hangs when it is told to; on its own it does not.
#[test]
fn one_that_waits_for_ever() {
    if HANGING.orders().is_some() {
        testkit::time_limit();
        std::thread::park();
        panic!("nobody unparks it");
    }
}

#[test]
fn a_process_that_hangs_is_ended_and_names_the_test() {
    let mut command = HANGING.command("hang");
    // With one thread the test would run on the main thread, which has another name.
    command.arg("--test-threads=2").env("PROBITY_TEST_LIMIT_SECONDS", "1");
    let mut program = Program::spawn(command);
    assert!(!program.wait().success());
    let output = program.output();
    assert!(output.contains("so a test hangs"), "{output}");
    if cfg!(target_os = "linux") {
        assert!(output.contains("one_that_waits"), "{output}");
    }
}
