//! Redis under Sentinel: a master, a replica that follows it, and three watchers that promote the replica when the
//! master is gone.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::server::Server;
use super::tls::{TlsFiles, TlsPort};
use super::wire;
use crate::locate::redis_server;
use crate::patience::{LIMIT, wait_for};
use crate::port::free_port;
use crate::program::Program;
use crate::session::temp_dir;

const SERVICE: &str = "probity";
const WATCHERS: usize = 3;

/// A master, a replica, and three Sentinels. They end with the value.
#[derive(Debug)]
pub struct RedisSentinels {
    master: Server,
    replica: Server,
    watchers: Vec<Watcher>,
    // Last, so that the watchers are gone before their files are.
    _folder: TempDir,
}

#[derive(Debug)]
struct Watcher {
    _program: Program,
    port: u16,
    tls: Option<TlsPort>,
}

impl RedisSentinels {
    pub(super) fn start(tls: Option<&TlsFiles>) -> RedisSentinels {
        let master = Server::start(&[], tls);
        let port = master.peer_port().to_string();
        let following = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let replica = Server::start(&following, tls);
        let folder = temp_dir();
        let watchers = (0..WATCHERS).map(|_| Watcher::start(&folder, master.peer_port(), tls)).collect();
        let sentinels = RedisSentinels { master, replica, watchers, _folder: folder };
        let formed = wait_for(LIMIT, || {
            let linked = wire::ask(sentinels.replica.port(), &["INFO", "replication"])
                .is_ok_and(|info| info.contains("master_link_status:up"));
            let seen = sentinels.agree("status=ok", sentinels.master.peer_port())
                && sentinels.agree("slaves=1,sentinels=3", sentinels.master.peer_port());
            (linked && seen).then_some(())
        });
        assert!(formed.is_some(), "three Redis Sentinels did not find master and replica within a minute");
        sentinels
    }

    /// The URLs of the Sentinels.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.watchers.iter().map(Watcher::url).collect()
    }

    /// The name under which the Sentinels know the master.
    #[must_use]
    pub fn service(&self) -> &'static str {
        SERVICE
    }

    /// The URL of the server that is master at first.
    #[must_use]
    pub fn master_url(&self) -> String {
        self.master.url()
    }

    /// Ends the master with `kill -9` and waits until all Sentinels name the replica instead.
    ///
    /// # Panics
    ///
    /// If they do not within a minute.
    pub fn fail_over(&mut self) {
        self.master.kill9();
        let port = self.replica.port();
        let promoted = wait_for(LIMIT, || {
            let serves =
                wire::ask(port, &["INFO", "replication"]).is_ok_and(|info| info.contains("role:master"));
            (serves && self.agree("status=ok", self.replica.peer_port())).then_some(())
        });
        assert!(promoted.is_some(), "the Redis Sentinels did not promote the replica within a minute");
    }

    /// Tells whether all watchers say this of a master at this port.
    fn agree(&self, what: &str, port: u16) -> bool {
        let address = format!("address=127.0.0.1:{port}");
        self.watchers.iter().all(|watcher| {
            wire::ask(watcher.port, &["INFO", "sentinel"])
                .is_ok_and(|info| info.contains(what) && info.contains(&address))
        })
    }
}

impl Watcher {
    fn start(folder: &TempDir, master: u16, tls: Option<&TlsFiles>) -> Watcher {
        let program = match redis_server() {
            Ok(program) => program,
            Err(missing) => panic!("{missing}"),
        };
        let port = free_port();
        let file = folder.path().join(format!("sentinel-{port}.conf"));
        // A Sentinel writes what it learned into its file.
        let mut settings = format!(
            "bind 127.0.0.1\nport {port}\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n"
        );
        let tls = tls.map(TlsPort::free);
        for (name, value) in tls.iter().flat_map(TlsPort::settings) {
            settings.push_str(&format!("{name} {value}\n"));
        }
        if let Err(error) = fs::write(&file, settings) {
            panic!("failed to write {}: {error}", file.display());
        }
        let mut command = Command::new(program);
        command.arg(&file).arg("--sentinel").current_dir(folder.path());
        let mut program = Program::spawn(command);
        program.wait_for_port(port);
        Watcher { _program: program, port, tls }
    }

    fn url(&self) -> String {
        match &self.tls {
            Some(tls) => tls.url(),
            None => format!("redis://127.0.0.1:{}/", self.port),
        }
    }
}
