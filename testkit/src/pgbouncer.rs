//! PgBouncer: a pooler in front of a database, as many teams have one.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::account::Account;
use crate::launch::{launch, on_a_free_port};
use crate::leash::{Farewell, Leashed};
use crate::locate::pgbouncer;
use crate::session::temp_dir;

/// The moment at which PgBouncer gives a server connection back to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// When the client disconnects.
    Session,
    /// After each transaction: the next one may have another server session.
    Transaction,
}

/// A running PgBouncer in front of one PostgreSQL server. It ends with the value.
///
/// It asks nobody for a password, is the URL's user towards the server whoever the client says it is, and holds at most
/// two server connections, so that clients do meet each other's sessions.
///
/// # Examples
///
/// ```no_run
/// use testkit::{PgBouncer, Pooling, Postgres};
///
/// let database = Postgres::shared().database();
/// let pooler = PgBouncer::start(database.url(), Pooling::Transaction);
/// let url = pooler.url(); // the same database, through the pooler
/// # let _ = url;
/// ```
#[derive(Debug)]
pub struct PgBouncer {
    program: PathBuf,
    account: Option<Account>,
    upstream: Upstream,
    port: u16,
    running: Option<Leashed>,
    // Last, so that the pooler is gone before its settings are.
    folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler in front of the database that `url` names.
    ///
    /// # Panics
    ///
    /// If PgBouncer is not installed, with the command that installs it; if it does not start, with its log; if `url`
    /// is not of the form `postgres://user[:password]@host:port/database`.
    #[must_use]
    pub fn start(url: &str, pooling: Pooling) -> PgBouncer {
        PgBouncer::start_with(url, pooling, &[])
    }

    /// Starts a pooler like [`PgBouncer::start`], with lines of the section `[pgbouncer]` of its settings:
    /// `"default_pool_size = 1"`. A later line wins over an earlier one.
    ///
    /// # Panics
    ///
    /// The same as for [`PgBouncer::start`].
    #[must_use]
    pub fn start_with(url: &str, pooling: Pooling, settings: &[&str]) -> PgBouncer {
        let program = match pgbouncer() {
            Ok(program) => program,
            Err(missing) => panic!("{missing}"),
        };
        let account = Account::for_postgres();
        let upstream = Upstream::parse(url);
        let mut pooler = PgBouncer { program, account, upstream, port: 0, running: None, folder: temp_dir() };
        on_a_free_port("PgBouncer", |port| {
            pooler.port = port;
            pooler.configure(pooling, settings);
            pooler.launch()
        });
        pooler
    }

    /// The URL of the database, through the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        let Upstream { user, database, .. } = &self.upstream;
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Ends it with `kill -9`: clients and server sessions lose their connections.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    /// Freezes it (`SIGSTOP`): connections stay open and nothing answers.
    pub fn pause(&mut self) {
        if let Some(running) = &mut self.running {
            running.signal(Signal::STOP);
        }
    }

    /// Ends [`PgBouncer::pause`].
    pub fn resume(&mut self) {
        if let Some(running) = &mut self.running {
            running.signal(Signal::CONT);
        }
    }

    /// Starts it again on its port; kills it before, if it runs.
    ///
    /// # Panics
    ///
    /// If it does not come back within a minute, with its log.
    pub fn restart(&mut self) {
        self.kill9();
        if let Err(log) = self.launch() {
            panic!("PgBouncer did not start again on port {}; its log:\n{log}", self.port);
        }
    }

    fn configure(&self, pooling: Pooling, settings: &[&str]) {
        let Upstream { host, port, user, password, .. } = &self.upstream;
        let mode = match pooling {
            Pooling::Session => "session",
            Pooling::Transaction => "transaction",
        };
        // sqlx sends `extra_float_digits` when it connects, which PgBouncer refuses unless it is told to ignore it.
        let text = format!(
            "[databases]\n* = host={host} port={port} user={user}{}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = 2\nmax_client_conn = 500\n\
             ignore_startup_parameters = extra_float_digits\n{}\n",
            password.as_ref().map(|password| format!(" password={password}")).unwrap_or_default(),
            self.port,
            settings.join("\n")
        );
        let file = self.file("pgbouncer.ini");
        let written = fs::write(&file, text).and_then(|()| match self.account {
            Some(account) => account.owns(self.folder.path()).and_then(|()| account.owns(&file)),
            None => Ok(()),
        });
        if let Err(error) = written {
            panic!("failed to write {}: {error}", file.display());
        }
    }

    /// Starts the process and waits until it serves; otherwise gives its log.
    fn launch(&mut self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command.arg(self.file("pgbouncer.ini")).current_dir(self.folder.path());
        let manner = (Farewell::Kill, self.account);
        let is_ready = |_: &Leashed| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        self.running = Some(launch(&command, &self.file("log"), manner, is_ready)?);
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The server behind the pooler.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Upstream {
    user: String,
    password: Option<String>,
    host: String,
    port: u16,
    database: String,
}

impl Upstream {
    fn parse(url: &str) -> Upstream {
        match Self::parts(url) {
            Some(upstream) => upstream,
            None => panic!(
                "PgBouncer needs a URL of the form postgres://user[:password]@host:port/database, without escapes"
            ),
        }
    }

    fn parts(url: &str) -> Option<Upstream> {
        let address = url.split('?').next()?;
        let rest = address.split_once("://")?.1;
        let (account, place) = rest.rsplit_once('@')?;
        let (user, password) = match account.split_once(':') {
            Some((user, password)) => (user, Some(password.to_owned())),
            None => (account, None),
        };
        let (server, database) = place.split_once('/')?;
        let (host, port) = server.rsplit_once(':').unwrap_or((server, "5432"));
        let complete = [user, host, database].iter().all(|part| !part.is_empty()) && !address.contains('%');
        complete.then_some(())?;
        Some(Upstream {
            user: user.to_owned(),
            password,
            host: host.to_owned(),
            port: port.parse().ok()?,
            database: database.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Upstream;

    #[test]
    fn a_url_is_read_with_and_without_a_password() {
        let upstream = Upstream::parts("postgres://u:p@h:1234/d?sslmode=disable").expect("a complete URL");
        assert_eq!((upstream.user.as_str(), upstream.password.as_deref()), ("u", Some("p")));
        assert_eq!((upstream.host.as_str(), upstream.port, upstream.database.as_str()), ("h", 1234, "d"));
        assert_eq!(Upstream::parts("postgres://u@h/d").expect("a complete URL").port, 5432);
        assert_eq!(Upstream::parts("postgres://h/d"), None);
        assert_eq!(Upstream::parts("postgres://u:p%40@h/d"), None);
    }
}
