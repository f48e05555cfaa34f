//! Workers: this test binary, started again with orders, so that a test can kill the process that works.

use std::process::Command;

use crate::program::Program;

/// Names the worker and carries its orders, in the environment of its process.
const ORDERS: &str = "PROBITY_TEST_ORDERS";

/// A test that works when its process was started with orders, and does nothing when it runs among the other tests.
///
/// ```no_run
/// use testkit::Worker;
///
/// const PAYER: Worker = Worker::named("a_payer_without_orders_does_nothing");
///
/// #[test]
/// fn a_payer_without_orders_does_nothing() {
///     let Some(url) = PAYER.orders() else { return };
///     println!("pays into {url}");
///     // … until it is killed
/// }
///
/// #[test]
/// fn a_payer_that_is_killed_pays_once() {
///     let mut payer = PAYER.start("postgres://localhost/payments");
///     payer.wait_for_line("pays into");
///     payer.kill9();
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    test: &'static str,
}

impl Worker {
    /// Names the test by its whole path in its binary, such as `"killed::a_payer_without_orders_does_nothing"`.
    ///
    /// No test of another name is the worker: its process ends at once, and a test that waits for a line of it fails.
    #[must_use]
    pub const fn named(test: &'static str) -> Worker {
        Worker { test }
    }

    /// Returns the orders that this process was started with; `None` if it was not started as this worker.
    #[must_use]
    pub fn orders(self) -> Option<String> {
        let given = std::env::var(ORDERS).ok()?;
        let (test, orders) = given.split_once(' ')?;
        (test == self.test).then(|| orders.to_owned())
    }

    /// Makes the command that starts the worker, for a test that adds to its environment or starts it by another program.
    ///
    /// # Panics
    ///
    /// If the system does not say which program this process runs.
    #[must_use]
    pub fn command(self, orders: &str) -> Command {
        let binary = std::env::current_exe();
        let binary = binary.unwrap_or_else(|error| panic!("this test binary has no path: {error}"));
        let mut command = Command::new(binary);
        command.args(["--exact", self.test, "--nocapture"]);
        command.env(ORDERS, format!("{} {orders}", self.test));
        command
    }

    /// Starts the worker in a process of its own.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use = "the worker is killed when this is dropped"]
    pub fn start(self, orders: &str) -> Program {
        Program::spawn(self.command(orders))
    }
}
