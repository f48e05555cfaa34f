//! The failures of locks.

/// A lock that was not taken.
///
/// It converts into [`sqlx::Error`], so that `?` works in closures that return one: a missing row
/// becomes `RowNotFound`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// There is no row to lock. An absent row cannot be locked: insert it, or lock its parent.
    #[error("{missing} of the rows to lock in {table} are not there")]
    Missing {
        /// The table.
        table: &'static str,
        /// The number of keys that have no row.
        missing: usize,
    },
    /// Another transaction holds the lock, and the caller did not want to wait.
    #[error("another transaction holds a row of {table}")]
    Held {
        /// The table.
        table: &'static str,
    },
    /// A lock at REPEATABLE READ does not show what others committed while it was waited for: sums
    /// taken under it would be wrong.
    #[error("a row lock proves nothing at REPEATABLE READ; use READ COMMITTED or SERIALIZABLE")]
    RepeatableRead,
    /// The run declared that it only reads: SQLite does not take the write lock for it, PostgreSQL refuses
    /// row locks, and a witness would prove nothing.
    #[error("a run that declared read_only() cannot lock; leave read_only() out")]
    ReadOnly,
    /// The table or its key column is not in the database.
    #[error(
        "there is no table {table} with a column {key}; compare Lockable::TABLE and Lockable::KEY with the \
         schema (a reserved word needs double quotes), and look whether all migrations ran: {source}"
    )]
    NoSuchTable {
        /// The table.
        table: &'static str,
        /// The column that should identify its rows.
        key: &'static str,
        /// The error of the database.
        source: sqlx::Error,
    },
    /// [`Lockable::Key`](crate::lock::Lockable::Key) is not the type of the key column.
    #[error("Lockable::Key is not the type of the column {key} of {table}: {source}")]
    KeyType {
        /// The table.
        table: &'static str,
        /// The column that identifies its rows.
        key: &'static str,
        /// The error of the database or of the driver.
        source: sqlx::Error,
    },
    /// There are too many rows for one statement.
    #[error("at most {limit} rows can be locked at once; lock in batches of ascending keys")]
    TooMany {
        /// The number of rows that can be locked at once.
        limit: usize,
    },
    /// The statement failed.
    #[error("the lock could not be taken: {0}")]
    Database(#[from] sqlx::Error),
}

impl From<LockError> for sqlx::Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Missing { .. } => Self::RowNotFound,
            LockError::Database(error)
            | LockError::NoSuchTable { source: error, .. }
            | LockError::KeyType { source: error, .. } => error,
            other => Self::InvalidArgument(other.to_string()),
        }
    }
}
