//! The options of SQLite that suit money.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

/// Makes the connection options for a database file that holds money: write-ahead log, a commit is on the
/// disk before it is answered, foreign keys are enforced, a busy database is waited for.
///
/// The file is created if it is missing.
///
/// ```
/// # async fn example() -> Result<(), sqlx::Error> {
/// let pool = sqlx::SqlitePool::connect_with(probity_txn::sqlite::options("payments.db")).await?;
/// # Ok(()) }
/// ```
#[must_use]
pub fn options(file: impl AsRef<Path>) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
}
