//! The life of one `redis-server` process and its data folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::tls::{TlsFiles, TlsPort};
use super::wire;
use crate::launch::{launch, on_a_free_port};
use crate::leash::{Farewell, Leashed};
use crate::locate::redis_server;
use crate::patience::LIMIT;
use crate::session::temp_dir;

/// Later options win, so a test can override these.
const OPTIONS: [&str; 8] =
    ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"];

#[derive(Debug)]
pub(super) struct Server {
    program: PathBuf,
    options: Vec<String>,
    /// The port without TLS, for this crate; and for all clients if there is no other.
    port: u16,
    tls: Option<TlsPort>,
    running: Option<Leashed>,
    // Last, so that the server is gone before its data is.
    folder: TempDir,
}

impl Server {
    /// Starts a server on a free port; with `tls`, on a second one that speaks TLS.
    pub(super) fn start(options: &[&str], tls: Option<&TlsFiles>) -> Server {
        let program = match redis_server() {
            Ok(program) => program,
            Err(missing) => panic!("{missing}"),
        };
        let options = OPTIONS.iter().chain(options).map(|&option| String::from(option)).collect();
        let mut server = Server { program, options, port: 0, tls: None, running: None, folder: temp_dir() };
        on_a_free_port("Redis", |port| {
            server.port = port;
            server.tls = tls.map(TlsPort::free);
            server.launch()
        });
        server
    }

    /// The URL for clients: of the port that speaks TLS, if there is one.
    pub(super) fn url(&self) -> String {
        match &self.tls {
            Some(tls) => tls.url(),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    /// The port at which other servers find this one.
    pub(super) fn peer_port(&self) -> u16 {
        self.tls.as_ref().map_or(self.port, TlsPort::number)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal(Signal::TERM);
        let stopped = running.wait(LIMIT);
        assert!(stopped.is_some(), "Redis did not stop; was it paused? Its log:\n{}", self.log());
    }

    pub(super) fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    pub(super) fn pause(&mut self) {
        if let Some(running) = &mut self.running {
            running.signal(Signal::STOP);
        }
    }

    pub(super) fn resume(&mut self) {
        if let Some(running) = &mut self.running {
            running.signal(Signal::CONT);
        }
    }

    pub(super) fn restart(&mut self) {
        self.resume();
        self.stop();
        if let Err(log) = self.launch() {
            panic!("Redis did not start again on port {}; its log:\n{log}", self.port);
        }
    }

    /// Starts the process and waits until it serves; otherwise gives its log.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(self.folder.path());
        for (name, value) in self.tls.iter().flat_map(TlsPort::settings) {
            command.args([format!("--{name}"), value]);
        }
        command.args(&self.options);
        // Somebody else's Redis could listen on our port, so look who answers.
        let is_ready = |running: &Leashed| {
            let ours = format!("process_id:{}\r\n", running.pid().as_raw_pid());
            let about = wire::ask(self.port, &["INFO"]);
            about.is_ok_and(|about| about.contains(&ours) && has_loaded(&about))
        };
        let log = self.folder.path().join("log");
        self.running = Some(launch(&command, &log, (Farewell::Kill, None), is_ready)?);
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// Tells whether the data set is in memory. `async_loading` is another line, of replicas.
fn has_loaded(about: &str) -> bool {
    about.lines().any(|line| line == "loading:0")
}

#[cfg(test)]
mod tests {
    use super::has_loaded;

    #[test]
    fn a_server_that_still_loads_its_data_is_not_ready() {
        assert!(!has_loaded("# Persistence\r\nloading:1\r\nasync_loading:0\r\n"));
        assert!(has_loaded("# Persistence\r\nloading:0\r\nasync_loading:0\r\n"));
    }
}
