//! PostgreSQL: one server for a test process, one database per test.

mod database;
mod psql;
mod role;
mod server;

use std::path::PathBuf;
use std::sync::OnceLock;

pub use database::TestDatabase;
pub use role::TestRole;
use server::Server;

use crate::locate::postgres_tools;

/// A PostgreSQL server: shared by the tests of this process, or one test's own to break.
///
/// It keeps what it acknowledged (`fsync` is on) and listens on a free loopback port.
#[derive(Debug)]
pub struct Postgres {
    url: String,
    psql: PathBuf,
    /// `None` if the server was given to us.
    server: Option<Server>,
}

impl Postgres {
    /// The server that the tests of this process share, started at the first call.
    ///
    /// With `PROBITY_TEST_DATABASE_URL` it is that server; the account must be allowed to create databases.
    ///
    /// # Panics
    ///
    /// If PostgreSQL is not installed, with the command that installs it; if the server does not start, with its log.
    pub fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("PROBITY_TEST_DATABASE_URL") {
            Ok(url) => Postgres { url, psql: tools().join("psql"), server: None },
            Err(_) => Postgres::start(),
        })
    }

    /// A server of one test's own, which it may stop, kill and freeze. It ends with the value.
    ///
    /// # Panics
    ///
    /// The same as for [`Postgres::shared`].
    #[must_use]
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// Starts a server like [`Postgres::start`], with settings in the form of `postgresql.conf`: `"fsync=off"`.
    ///
    /// # Panics
    ///
    /// The same as for [`Postgres::shared`].
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Postgres {
        let tools = tools();
        let server = Server::start(&tools, settings);
        Postgres { url: server.url(), psql: tools.join("psql"), server: Some(server) }
    }

    /// A hot standby of this server, made by `pg_basebackup` and fed by streaming replication. It serves readers when
    /// this returns, and ends with the value; the settings are those of this server.
    ///
    /// # Panics
    ///
    /// The same as for [`Postgres::shared`]; if this server was given by `PROBITY_TEST_DATABASE_URL`.
    #[must_use]
    pub fn standby(&self) -> Postgres {
        let tools = tools();
        let Some(primary) = &self.server else {
            panic!("a server given by PROBITY_TEST_DATABASE_URL is not ours to copy; use Postgres::start")
        };
        let server = primary.standby(&tools);
        Postgres { url: server.url(), psql: tools.join("psql"), server: Some(server) }
    }

    /// The URL of the server's own database `postgres`. Tests usually want a [`Postgres::database`].
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates an empty database that no other test uses; it is dropped with the value.
    ///
    /// # Panics
    ///
    /// If the server refuses, with what it said.
    pub fn database(&self) -> TestDatabase {
        TestDatabase::create(&self.psql, &self.url)
    }

    /// Shuts the server down cleanly: running statements are cut off, data is written.
    ///
    /// # Panics
    ///
    /// If the server does not stop within a minute.
    pub fn stop(&mut self) {
        self.own().stop();
    }

    /// Ends the server and all its sessions with `kill -9`, as a crash of the machine would, except that the disk
    /// cache survives.
    pub fn kill9(&mut self) {
        self.own().kill9();
    }

    /// Freezes the server and all its sessions (`SIGSTOP`): connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Ends [`Postgres::pause`].
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
            None => panic!(
                "a server given by PROBITY_TEST_DATABASE_URL is not ours to break; use Postgres::start"
            ),
        }
    }
}

fn tools() -> PathBuf {
    match postgres_tools() {
        Ok(folder) => folder,
        Err(missing) => panic!("{missing}"),
    }
}
