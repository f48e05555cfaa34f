//! Prometheus: checks a folder of settings with `promtool`, and runs it.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::launch::{launch, on_a_free_port};
use crate::leash::{Farewell, Leashed};
use crate::locate::prometheus;
use crate::session::temp_dir;

/// A running Prometheus with settings of a test. It ends with the value.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _running: Option<Leashed>,
    // Last, so that the server is gone before its data is.
    _folder: TempDir,
}

impl Prometheus {
    /// Checks `prometheus.yml` of this folder, with the rules that it names, and starts a server on it.
    ///
    /// # Panics
    ///
    /// If Prometheus is not installed, with the command that installs it; if `promtool` refuses the settings, with its
    /// words; if the server does not start, with its log.
    #[must_use]
    pub fn start(settings: &Path) -> Prometheus {
        let [server, tool] = match prometheus() {
            Ok(programs) => programs,
            Err(missing) => panic!("{missing}"),
        };
        let config = settings.join("prometheus.yml");
        match Command::new(tool).args(["check", "config"]).arg(&config).output() {
            Ok(checked) if checked.status.success() => {}
            Ok(checked) => panic!("promtool refuses the settings: {checked:?}"),
            Err(error) => panic!("failed to run promtool: {error}"),
        }
        let mut prometheus = Prometheus { port: 0, _running: None, _folder: temp_dir() };
        let folder = prometheus._folder.path().to_owned();
        on_a_free_port("Prometheus", |port| {
            let mut command = Command::new(&server);
            let flag = |name: &str, value: &Path| format!("--{name}={}", value.display());
            command
                .arg(flag("config.file", &config))
                .arg(flag("storage.tsdb.path", &folder.join("data")))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
            let is_ready = |_: &Leashed| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            let running = launch(&command, &folder.join("log"), (Farewell::Kill, None), is_ready)?;
            (prometheus.port, prometheus._running) = (port, Some(running));
            Ok(())
        });
        prometheus
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
