//! The life of one `postgres` process and its data folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::account::Account;
use crate::launch::{launch, on_a_free_port};
use crate::leash::{Farewell, Leash, Leashed};
use crate::patience::{LIMIT, wait_for};
use crate::process;
use crate::session::temp_dir;

/// Later settings win, so a test can override these.
const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=", // its path could be too long, and nobody uses it
    "max_connections=300",
    "shared_buffers=32MB",
    "log_line_prefix=%m [%p] %d ",
];

#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    account: Option<Account>,
    settings: Vec<String>,
    port: u16,
    running: Option<Leashed>,
    // Last, so that the server is gone before its data is.
    folder: TempDir,
}

impl Server {
    /// Makes a data folder and starts a server on a free port.
    pub(super) fn start(tools: &Path, settings: &[&str]) -> Server {
        let account = Account::for_postgres();
        let folder = temp_dir();
        if let Err(error) = account.map_or(Ok(()), |account| account.owns(folder.path())) {
            panic!("failed to give {} to the account PostgreSQL runs as: {error}", folder.path().display());
        }
        initdb(tools, folder.path(), account);
        let settings = SETTINGS.iter().chain(settings).map(|&setting| String::from(setting)).collect();
        let mut server =
            Server { program: tools.join("postgres"), account, settings, port: 0, running: None, folder };
        server.launch_on_a_free_port();
        server
    }

    fn launch_on_a_free_port(&mut self) {
        on_a_free_port("PostgreSQL", |port| {
            self.port = port;
            self.launch()
        });
    }

    /// Copies this server while it runs, and starts the copy as its standby.
    pub(super) fn standby(&self, tools: &Path) -> Server {
        let folder = temp_dir();
        if let Err(error) = self.account.map_or(Ok(()), |account| account.owns(folder.path())) {
            panic!("failed to give {} to the account PostgreSQL runs as: {error}", folder.path().display());
        }
        let mut command = in_english(&tools.join("pg_basebackup"));
        command.args(["--host=127.0.0.1", "--username=postgres", &format!("--port={}", self.port)]);
        command.args(["--no-password", "--no-sync", "--write-recovery-conf", "--wal-method=stream"]);
        command.args(["--checkpoint=fast", "--pgdata"]).arg(folder.path().join("data"));
        run_to_its_end(&command, folder.path(), self.account);
        let (program, settings) = (self.program.clone(), self.settings.clone());
        let mut server = Server { program, account: self.account, settings, port: 0, running: None, folder };
        server.launch_on_a_free_port();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(super) fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal(Signal::INT); // PostgreSQL's fast shutdown
        let stopped = running.wait(LIMIT);
        assert!(stopped.is_some(), "PostgreSQL did not stop; was it paused? Its log:\n{}", self.log());
    }

    pub(super) fn kill9(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let family = freeze(&mut running);
        for &session in &family {
            process::send(session, Signal::KILL);
        }
        running.kill9();
        // A session that still runs could still commit, and keeps the next server from starting.
        let gone =
            wait_for(LIMIT, || (!family.iter().any(|&session| process::is_running(session))).then_some(()));
        assert!(gone.is_some(), "sessions of PostgreSQL survived kill -9; is the disk stuck?");
    }

    pub(super) fn pause(&mut self) {
        if let Some(running) = &mut self.running {
            for session in freeze(running) {
                process::send(session, Signal::STOP);
            }
        }
    }

    pub(super) fn resume(&mut self) {
        if let Some(running) = &mut self.running {
            for session in process::children_of(running.pid()) {
                process::send(session, Signal::CONT);
            }
            running.signal(Signal::CONT);
        }
    }

    pub(super) fn restart(&mut self) {
        self.resume();
        self.stop();
        if let Err(log) = self.launch() {
            panic!("PostgreSQL did not start again on port {}; its log:\n{log}", self.port);
        }
    }

    /// Starts the process and waits until it serves; otherwise gives its log.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = in_english(&self.program);
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.current_dir(self.folder.path());
        let (log, manner) = (self.folder.path().join("log"), (Farewell::Quit, self.account));
        self.running = Some(launch(&command, &log, manner, |running| self.serves(running.pid()))?);
        Ok(())
    }

    /// Reads the pid file like `pg_ctl`: its first line names the process, its eighth the state.
    fn serves(&self, pid: Pid) -> bool {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else { return false };
        let mut lines = text.lines();
        lines.next() == Some(pid.as_raw_pid().to_string().as_str())
            && lines.nth(6).is_some_and(|state| state.trim() == "ready")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Stops the server from starting further sessions, and names those it has.
fn freeze(running: &mut Leashed) -> Vec<Pid> {
    running.signal(Signal::STOP);
    process::children_of(running.pid())
}

/// In the locale that every system has: macOS refuses to start PostgreSQL without one, and we read its log.
fn in_english(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C");
    command
}

/// Makes an empty data folder. Its files need not reach the disk: no test cuts the power.
fn initdb(tools: &Path, folder: &Path, account: Option<Account>) {
    let mut command = in_english(&tools.join("initdb"));
    command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    command.args(["--no-sync", "--no-instructions", "--pgdata"]).arg(folder.join("data"));
    run_to_its_end(&command, folder, account);
}

/// Runs one of PostgreSQL's own programs, on the leash and in `folder`.
fn run_to_its_end(command: &Command, folder: &Path, account: Option<Account>) {
    let run = || {
        let mut leash = Leash::around(command, Farewell::Kill, account)?;
        leash.command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = leash.spawn()?;
        let complaint = running.child().stderr.take().map(io::read_to_string).transpose()?;
        Ok::<_, io::Error>((running.wait(LIMIT), complaint.unwrap_or_default()))
    };
    match run() {
        Ok((Some(status), _)) if status.success() => {}
        Ok((status, complaint)) => {
            let program = Path::new(command.get_program()).display();
            panic!("{program} failed in {} ({status:?}): {complaint}", folder.display())
        }
        Err(error) => panic!("failed to run {}: {error}", Path::new(command.get_program()).display()),
    }
}
