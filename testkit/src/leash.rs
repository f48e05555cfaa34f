//! The leash: a child process that cannot outlive this one.
//!
//! Invariant: a process on the leash is known to the watchdog (see `session.rs`) *before* it runs the program it was
//! made for. A process that registers itself after it was started could be missed by a test process dying in between;
//! so the child starts as a shell that writes its own id into a folder made for it, looks whether the folder is still
//! there, and only then becomes the program. The id stays the same.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::account::Account;
use crate::patience::{LIMIT, wait_for};
use crate::session::Session;

/// The way in which the watchdog ends a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Farewell {
    /// At once: the process has no children, or they are in its group.
    Kill,
    /// PostgreSQL's immediate shutdown: its sessions live in groups of their own, and only it knows them all.
    Quit,
}

/// A running child and the leader of its own process group.
#[derive(Debug)]
pub(crate) struct Leashed {
    child: Child,
    pid: Pid,
    ended: Option<ExitStatus>,
    registration: PathBuf,
}

/// A command that registers itself; see [`Leash::spawn`].
#[derive(Debug)]
pub(crate) struct Leash {
    /// Set its standard streams, then call [`Leash::spawn`].
    pub(crate) command: Command,
    registration: PathBuf,
}

impl Leash {
    /// Wraps `original`: its program, arguments, environment and folder. Streams are set on the wrapper.
    pub(crate) fn around(
        original: &Command,
        farewell: Farewell,
        account: Option<Account>,
    ) -> io::Result<Leash> {
        const REGISTER: &str = r#"echo "$$ $1" >"$0/pid" && [ -f "$0/pid" ] && shift && exec "$@""#;
        let registration = Session::current().new_leash()?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", REGISTER]).arg(&registration);
        command.arg(match farewell {
            Farewell::Kill => "KILL",
            Farewell::Quit => "QUIT",
        });
        command.arg(original.get_program()).args(original.get_args()).process_group(0);
        for (name, value) in original.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = original.get_current_dir() {
            command.current_dir(folder);
        }
        if let Some(account) = account {
            account.owns(&registration)?;
            account.runs(&mut command);
        }
        Ok(Leash { command, registration })
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> io::Result<Leashed> {
        let child = self.command.spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Leashed { child, pid, ended: None, registration: self.registration })
    }
}

impl Leashed {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The child's streams, as far as they are pipes and were not taken yet.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The exit status of the process; `None` while it runs.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.ended = Some(status);
            let _unregistered = std::fs::remove_dir_all(&self.registration);
        }
        self.ended
    }

    /// Waits for the exit status of the process; `None` if it did not end within `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_for(limit, || self.try_wait())
    }

    /// Sends `signal` to the process and everything it started in its group, unless it ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_none() {
            let _gone_already = kill_process_group(self.pid, signal);
        }
    }

    /// Kills it and collects it.
    pub(crate) fn kill9(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        match self.wait(LIMIT) {
            Some(status) => status,
            None => panic!("process {} did not end after kill -9; is its disk stuck?", self.pid.as_raw_pid()),
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _last_words = self.wait(LIMIT);
    }
}
