//! Redis: one server for a test process, one key prefix per test; a cluster of three; and a pair under Sentinel.

mod cluster;
mod sentinel;
mod server;
mod tls;
mod wire;

use std::sync::OnceLock;

pub use cluster::RedisCluster;
use sentinel::RedisSentinels;
use server::Server;
pub use tls::TlsFiles;

use crate::random::Rng;

/// A Redis server: shared by the tests of this process, or one test's own to break.
///
/// It writes every command to disk before it answers (`appendfsync always`), so that what it acknowledged survives
/// [`Redis::kill9`], and listens on a free loopback port.
#[derive(Debug)]
pub struct Redis {
    url: String,
    /// `None` if the server was given to us.
    server: Option<Server>,
}

impl Redis {
    /// The server that the tests of this process share, started at the first call.
    ///
    /// With `PROBITY_TEST_REDIS_URL` it is that server.
    ///
    /// # Panics
    ///
    /// If Redis is not installed, with the command that installs it; if the server does not start, with its log.
    pub fn shared() -> &'static Redis {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("PROBITY_TEST_REDIS_URL") {
            Ok(url) => Redis { url, server: None },
            Err(_) => Redis::start(),
        })
    }

    /// A server of one test's own, which it may stop, kill and freeze. It ends with the value.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Starts a server like [`Redis::start`], with options of `redis-server`: `["--maxmemory", "2mb"]`, or
    /// `["--appendfsync", "no"]` for less durability.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn start_with(options: &[&str]) -> Redis {
        let server = Server::start(options, None);
        Redis { url: server.url(), server: Some(server) }
    }

    /// Starts a server like [`Redis::start_with`], with a URL that speaks TLS. It asks clients for no certificate, unless
    /// told so with `["--tls-auth-clients", "yes"]`.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn start_tls(files: &TlsFiles, options: &[&str]) -> Redis {
        let server = Server::start(options, Some(files));
        Redis { url: server.url(), server: Some(server) }
    }

    /// A cluster of three masters of one test's own.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn cluster() -> RedisCluster {
        RedisCluster::start(None)
    }

    /// Starts a cluster like [`Redis::cluster`], over TLS.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn cluster_tls(files: &TlsFiles) -> RedisCluster {
        RedisCluster::start(Some(files))
    }

    /// A master, its replica, and three Sentinels of one test's own.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn sentinels() -> RedisSentinels {
        RedisSentinels::start(None)
    }

    /// Starts servers like [`Redis::sentinels`], over TLS.
    ///
    /// # Panics
    ///
    /// The same as for [`Redis::shared`].
    #[must_use]
    pub fn sentinels_tls(files: &TlsFiles) -> RedisSentinels {
        RedisSentinels::start(Some(files))
    }

    /// The URL for the client.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A prefix that no other test uses: put it before every key, and tests on one server do not meet.
    #[must_use]
    pub fn key_prefix(&self) -> String {
        format!("probity-test-{:016x}:", Rng::random().next_u64())
    }

    /// Shuts the server down cleanly.
    ///
    /// # Panics
    ///
    /// If the server does not stop within a minute.
    pub fn stop(&mut self) {
        self.own().stop();
    }

    /// Ends the server with `kill -9`.
    pub fn kill9(&mut self) {
        self.own().kill9();
    }

    /// Freezes the server (`SIGSTOP`): connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Ends [`Redis::pause`].
    pub fn resume(&mut self) {
        self.own().resume();
    }

    /// Starts the server again on its port and its data; stops it before, if it runs.
    ///
    /// # Panics
    ///
    /// If it does not come back within a minute, with its log.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    fn own(&mut self) -> &mut Server {
        match &mut self.server {
            Some(server) => server,
            // `shared` gives no `&mut`, and `start` always has a server.
            None => panic!("a server given by PROBITY_TEST_REDIS_URL is not ours to break; use Redis::start"),
        }
    }
}
