//! Starting a server: on a free port, with a log that a failure shows.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::Account;
use crate::leash::{Farewell, Leash, Leashed};
use crate::patience::{LIMIT, wait_for};
use crate::port::free_port;

/// Tries `launch` with free ports until the server called `name` runs. The error of `launch` is the server's log.
///
/// # Panics
///
/// If the server does not start, with its log.
pub(crate) fn on_a_free_port(name: &str, mut launch: impl FnMut(u16) -> Result<(), String>) {
    for _ in 0..5 {
        match launch(free_port()) {
            Ok(()) => return,
            Err(log) if log.contains("in use") => {} // somebody was faster: another port
            Err(log) => panic!("{name} did not start; its log:\n{log}"),
        }
    }
    panic!("{name} found none of five free ports free; look who takes them: ss -tlnp");
}

/// Starts a server that writes to the file `log`, and waits until `is_ready`, which is given the running process.
/// The error is the log.
pub(crate) fn launch(
    command: &Command,
    log: &Path,
    (farewell, account): (Farewell, Option<Account>),
    is_ready: impl Fn(&Leashed) -> bool,
) -> Result<Leashed, String> {
    let start = || -> io::Result<Leashed> {
        let file = File::create(log)?;
        let mut leash = Leash::around(command, farewell, account)?;
        leash.command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        leash.spawn()
    };
    let program = Path::new(command.get_program()).display();
    let mut running = start().map_err(|error| format!("failed to run {program}: {error}"))?;
    let ready = wait_for(LIMIT, || {
        let has_ended = running.try_wait().is_some();
        (has_ended || is_ready(&running)).then_some(!has_ended)
    });
    // What answered could be another server on the port of one that has ended.
    match ready == Some(true) && running.try_wait().is_none() {
        true => Ok(running),
        false => Err(fs::read_to_string(log).unwrap_or_default()),
    }
}
