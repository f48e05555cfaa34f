//! Answers that this crate gives in place of the database, with the code that PostgreSQL uses for them.
//!
//! They reach the caller as errors of the database do, so that one set of rules decides about both.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use sqlx::error::{DatabaseError, ErrorKind};

/// An error of the database that this crate says by itself.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    code: &'static str,
    message: &'static str,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl OwnAnswer {
    /// Makes an error of the database.
    #[cfg(feature = "postgres")]
    pub(super) fn with_code(code: &'static str, message: &'static str) -> sqlx::Error {
        Self { code, message, cause: None }.into()
    }

    /// Answers a statement in a transaction that can no longer be committed.
    ///
    /// PostgreSQL gives this answer by itself. Giving it here too makes every database behave alike, and keeps SQLite
    /// from running statements after it ended a transaction on its own.
    pub(crate) fn refuse_aborted(cause: impl StdError + Send + Sync + 'static) -> sqlx::Error {
        // in_failed_sql_transaction
        let message = "the transaction takes no further statements";
        Self { code: "25P02", message, cause: Some(Box::new(cause)) }.into()
    }
}

impl fmt::Display for OwnAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl StdError for OwnAnswer {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
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
