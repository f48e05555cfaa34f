//! What a server says to a run that would write on it: said by us, before the run writes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use sqlx::error::{DatabaseError, ErrorKind};

/// `read_only_sql_transaction`, as the answer to BEGIN.
#[derive(Debug)]
pub(super) struct ReadOnlyServer;

const MESSAGE: &str = "the server takes no writes: it is a standby, or default_transaction_read_only is on";

impl fmt::Display for ReadOnlyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MESSAGE)
    }
}

impl StdError for ReadOnlyServer {}

impl DatabaseError for ReadOnlyServer {
    fn message(&self) -> &str {
        MESSAGE
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("25006"))
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
