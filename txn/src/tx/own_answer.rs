//! Answers that this crate gives in place of the database, with the code that PostgreSQL uses for them.
//!
//! They reach the caller as errors of the database do, so that one set of rules decides about both.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use sqlx::error::{DatabaseError, ErrorKind};

use crate::error::RollbackReason;

/// An error of the database that this crate says by itself.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    code: &'static str,
    message: &'static str,
    reason: Option<RollbackReason>,
}

impl OwnAnswer {
    /// Answers a statement in a transaction that can no longer be committed.
    ///
    /// PostgreSQL gives this answer by itself. Giving it here too makes every database behave alike, and keeps SQLite
    /// from running statements after it ended a transaction on its own.
    pub(crate) fn aborted(reason: RollbackReason) -> sqlx::Error {
        // in_failed_sql_transaction
        Self { code: "25P02", message: "the transaction takes no further statements", reason: Some(reason) }
            .into()
    }

    /// Answers the BEGIN of a run that may write, before it writes, on a server that takes no writes.
    #[cfg(feature = "postgres")]
    pub(crate) fn read_only_server() -> sqlx::Error {
        // read_only_sql_transaction
        let message = "the server takes no writes: it is a standby, or default_transaction_read_only is on";
        Self { code: "25006", message, reason: None }.into()
    }

    /// Answers a BEGIN inside a transaction that is open already, where PostgreSQL only warns.
    #[cfg(feature = "postgres")]
    pub(crate) fn inside_a_transaction() -> sqlx::Error {
        // active_sql_transaction
        Self { code: "25001", message: "there is already a transaction in progress", reason: None }.into()
    }
}

impl fmt::Display for OwnAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl StdError for OwnAnswer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.reason.as_ref().map(|reason| reason as _)
    }
}

impl DatabaseError for OwnAnswer {
    fn message(&self) -> &str {
        self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(self.code))
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}
