//! The reasons for which a service cannot start, in words that name the remedy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A service refuses to start; the message is meant for the person who started it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A variable of the environment cannot be right.
    #[error("{name} {problem}")]
    Setting {
        /// The variable.
        name: String,
        /// The mistake, and what to set instead; never the value of a secret.
        problem: String,
    },
    /// Another program listens there.
    #[error(
        "port {} is already in use ({address}): stop the program that holds it, or set PORT to a free one",
        address.port()
    )]
    PortInUse {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// The listener could not be opened for another reason.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The folder or file of the embedded database cannot be written.
    #[error("failed to write {}: {reason}; set DATABASE_URL or DATA_DIR to a place this user can write", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The answer.
        reason: String,
    },
    /// The database did not answer, or refused us.
    #[error("failed to open the database of {service}: {source}")]
    Database {
        /// Which service asked.
        service: String,
        /// The error of the driver.
        source: sqlx::Error,
    },
    /// The database was written by a newer build.
    #[error(
        "the database of {service} has schema version {found}, this build knows {known}: run a newer build"
    )]
    SchemaTooNew {
        /// Which service asked.
        service: String,
        /// The version recorded in the database.
        found: i64,
        /// The newest version this build carries.
        known: i64,
    },
    /// Anything else a service meets while it starts.
    #[error("failed to start {what}: {source}")]
    Other {
        /// The part that failed.
        what: &'static str,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StartError {
    /// Wraps the error of a part that has no variant of its own.
    pub fn other(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StartError {
        StartError::Other { what, source: source.into() }
    }

    pub(crate) fn setting(name: &'static str, problem: impl Into<String>) -> StartError {
        StartError::Setting { name: name.to_owned(), problem: problem.into() }
    }
}
