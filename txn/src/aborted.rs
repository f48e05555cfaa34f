//! The answer to a statement in a transaction that can no longer be committed.
//!
//! PostgreSQL gives it by itself; giving it here too makes every database behave alike, and keeps
//! SQLite from running statements after it ended a transaction on its own.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use sqlx::error::{DatabaseError, ErrorKind};

use crate::error::Reason;

/// `in_failed_sql_transaction`, with the reason.
#[derive(Debug)]
pub(crate) struct Aborted(pub(crate) Reason);

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the transaction takes no further statements: {}", self.0)
    }
}

impl StdError for Aborted {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

impl DatabaseError for Aborted {
    fn message(&self) -> &str {
        "the transaction takes no further statements"
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("25P02"))
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
