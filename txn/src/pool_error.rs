//! The error of a transaction that could not be opened: the server, its answer, and the remedy.

use std::io;

use sqlx::Pool;

use crate::backend::Backend;
use crate::failure::Failure;

/// The error of a transaction that could not be opened: the server, its answer, and the remedy.
///
/// The message names host, port, database and user, and never the password. The driver's error is the
/// [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error("{server}: {source}; {remedy}")]
pub struct PoolError {
    server: Box<str>,
    remedy: &'static str,
    source: Box<sqlx::Error>,
}

impl PoolError {
    /// Explains `error` to a borrower of `pool`.
    pub(crate) fn new<DB: Backend>(pool: &Pool<DB>, error: sqlx::Error) -> Self {
        let server = DB::server(&pool.connect_options()).into();
        Self { server, remedy: remedy::<DB>(&error), source: Box::new(error) }
    }

    /// Names the server that the pool leads to, as a URL without the password: `postgres://app@db:5432/bank`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Names the remedy.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.remedy
    }

    /// Gives the driver's error.
    #[must_use]
    pub fn driver(&self) -> &sqlx::Error {
        &self.source
    }

    /// The same as a failure of an attempt, with server and remedy in its message.
    pub(crate) fn failure<DB: Backend>(&self) -> Failure {
        Failure::of::<DB>(&self.source).with_message(self)
    }
}

fn remedy<DB: Backend>(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::Database(database) => database
            .code()
            .and_then(|code| DB::remedy(&code))
            .unwrap_or("nothing was written, so it can be tried again once that is mended"),
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "start the server, or correct host and port"
        }
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            "see whether the network lets this host reach it"
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => {
            "correct the host, or look at the log of the server or proxy there"
        }
        sqlx::Error::Tls(_) => "compare sslmode and the certificates with the server's",
        sqlx::Error::PoolTimedOut => {
            "all connections of the pool are in use: hold them shorter, or allow more with max_connections"
        }
        sqlx::Error::PoolClosed => "run nothing after closing the pool",
        _ => "correct the options of the pool",
    }
}
