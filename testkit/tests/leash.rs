//! Tests that no child outlives the test process, however it ends.
//!
//! Each test starts this test binary once more with the order to start things and wait, kills it without a goodbye, and
//! looks what is left.
#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::{Postgres, Program, Redis, Worker};

const VICTIM: Worker = Worker::named("a_test_process_that_has_one_of_each");

/// Runs as the test process that will be killed: starts one of each and says what it started.
#[test]
fn a_test_process_that_has_one_of_each() {
    let Some(role) = VICTIM.orders() else { return };
    let mut postgres = Postgres::start();
    let redis = Redis::start();
    let mut program = Program::spawn(sleeper());
    program.wait_for_line("asleep");
    let folder = testkit::temp_dir();
    if role == "paused" {
        postgres.pause();
        program.pause();
    }
    println!("folder {}", folder.path().display());
    println!("port {}", port_of(postgres.url()));
    println!("port {}", port_of(redis.url()));
    println!("program {}", program.id());
    println!("everything runs");
    program.wait();
}

#[test]
fn kill_9_of_the_test_process_leaves_no_server_no_program_and_no_folder() {
    let (mut process, things) = start("running");
    assert!(things.folder.exists() && things.all_run());
    process.kill9();
    things.assert_all_gone();
}

#[test]
fn even_what_was_paused_is_ended() {
    let (mut process, things) = start("paused");
    process.kill9();
    things.assert_all_gone();
}

#[test]
fn ctrl_c_at_the_terminal_leaves_nothing() {
    let (mut process, things) = start("running");
    // A background job of a shell without job control ignores Ctrl-C, and so does all it starts, this test included.
    if interrupts_are_ignored() {
        process.terminate()
    } else {
        process.interrupt()
    };
    things.assert_all_gone();
}

/// Tells whether this process inherited an ignored `SIGINT` (signal 2), where the system tells.
fn interrupts_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    mask.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 0b10 != 0)
}

#[test]
fn what_is_dropped_is_gone_at_once() {
    let mut program = Program::spawn(sleeper());
    program.wait_for_line("asleep");
    let redis = Redis::start();
    let postgres = Postgres::start();
    let ports = [port_of(redis.url()), port_of(postgres.url())];
    let id = program.id();
    drop((program, redis, postgres));
    assert!(!runs(id));
    assert!(ports.iter().all(|&port| !listens(port)));
}

#[test]
fn a_program_can_be_ended_in_each_way_and_its_output_is_kept() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap 'echo goodbye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    let mut polite = Program::spawn(command);
    polite.wait_for_line("ready");
    assert_eq!(polite.terminate().code(), Some(3));
    assert_eq!(polite.output(), "ready\ngoodbye");

    let mut killed = Program::spawn(sleeper());
    killed.wait_for_line("asleep");
    assert!(killed.is_running());
    assert_eq!(killed.kill9().code(), None, "a killed program has no exit code");
    assert!(!killed.is_running());
}

#[test]
#[should_panic(expected = "disk full")]
fn a_program_that_ends_before_the_awaited_line_is_a_panic_that_shows_what_it_wrote() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo disk full >&2; exit 1"]);
    Program::spawn(command).wait_for_line("listening");
}

#[test]
#[should_panic(expected = "does not listen")]
fn waiting_for_the_port_of_a_program_that_ended_is_a_panic() {
    Program::spawn(Command::new("true")).wait_for_port(testkit::free_port());
}

struct Things {
    folder: PathBuf,
    ports: Vec<u16>,
    program: u32,
}

impl Things {
    fn all_run(&self) -> bool {
        self.ports.iter().all(|&port| listens(port)) && runs(self.program)
    }

    fn assert_all_gone(&self) {
        // The watchdog works beside us, so give it a while; PostgreSQL may take five seconds to end its sessions.
        for _ in 0..600 {
            let session = self.folder.parent().expect("the session's folder");
            if !session.exists() && self.ports.iter().all(|&port| !listens(port)) && !runs(self.program) {
                return;
            }
            let _result = Command::new("sleep").arg("0.05").status();
        }
        panic!(
            "still there: folder {}, ports {:?}, program {}",
            self.folder.exists(),
            self.ports,
            runs(self.program)
        );
    }
}

/// Starts this test binary once more in the role of the process that will be killed.
fn start(role: &str) -> (Program, Things) {
    let mut process = VICTIM.start(role);
    process.wait_for_line("everything runs");
    let output = process.output();
    let values = |name: &str| -> Vec<String> {
        output
            .lines()
            .filter_map(|line| line.split_once(&format!("{name} ")))
            .map(|(_, value)| value.to_owned())
            .collect()
    };
    let things = Things {
        folder: Path::new(&values("folder")[0]).to_owned(),
        ports: values("port").iter().map(|port| port.parse().expect("a port")).collect(),
        program: values("program")[0].parse().expect("a process id"),
    };
    assert_eq!(things.ports.len(), 2, "{output}");
    (process, things)
}

fn sleeper() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo asleep; sleep 600 & wait"]);
    command
}

fn port_of(url: &str) -> u16 {
    let address = url.rsplit(['@', '/']).find(|part| part.contains(':')).expect("an address");
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(1)).is_ok()
}

/// Tells whether a process runs; one that ended and was not collected does not.
fn runs(id: u32) -> bool {
    if Path::new("/proc/self").exists() {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"));
        return stat.is_ok_and(|stat| !stat.contains(") Z "));
    }
    let state = Command::new("ps").args(["-o", "stat=", "-p", &id.to_string()]).output().expect("ps");
    let state = String::from_utf8_lossy(&state.stdout);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}
