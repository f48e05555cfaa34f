//! The builder of a store in SQLite: names, and who makes the tables.

use std::time::Duration;

use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, Row as _};

use super::{SqliteStore, schema};
use crate::error::StoreError;
use crate::store::rows::store_error;
use crate::store::tables::{Tables, USUAL_PREFIX};

/// The longest wait of a write for the writes before it; each of them waits at most for the pool's busy timeout.
const QUEUE: Duration = Duration::from_secs(60);

/// Opens a [`SqliteStore`] that differs from what [`SqliteStore::new`] opens.
///
/// # Examples
///
/// ```no_run
/// # async fn example(pool: sqlx::SqlitePool) -> Result<(), probity_saga::store::StoreError> {
/// use probity_saga::SqliteStore;
///
/// let store = SqliteStore::builder(pool).table_prefix("payouts_").build().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `build` or `verify`"]
pub struct SqliteStoreBuilder {
    pool: SqlitePool,
    prefix: String,
}

impl SqliteStoreBuilder {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool, prefix: USUAL_PREFIX.into() }
    }

    /// Sets the prefix of the names of all tables, views and indexes: `saga_`, unless it is chosen here. Two stores with
    /// different prefixes do not see each other's sagas.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The SQL that makes the tables of this version, for the names chosen here.
    ///
    /// # Errors
    /// If the prefix cannot be used.
    pub fn ddl(&self) -> Result<String, StoreError> {
        schema::ddl(&Tables::new(None, &self.prefix)?)
    }

    /// Opens the store, and makes the tables, or those of a newer version, if they are missing.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the prefix cannot be used; if the database is not in WAL mode with `synchronous` FULL or EXTRA, by the options
    /// of the pool as well as on its connections; if the tables cannot be made.
    pub async fn build(self) -> Result<SqliteStore, StoreError> {
        self.open(true).await
    }

    /// Opens the store as [`build`](Self::build) does, but never creates or changes a table.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build); and if the tables of this version are missing.
    pub async fn verify(self) -> Result<SqliteStore, StoreError> {
        self.open(false).await
    }

    async fn open(self, may_create: bool) -> Result<SqliteStore, StoreError> {
        let tables = Tables::new(None, &self.prefix)?;
        check_durability(&self.pool).await?;
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(QUEUE)
            // After some errors SQLite ends a transaction by itself, and sqlx believes for ever that it is still in it.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(self.pool.connect_options().as_ref().clone())
            .await
            .map_err(|error| store_error("open a connection that writes", error))?;
        // It is opened with the options of the pool; the pool's later changes to its own connections do not reach it.
        check_durability(&writer).await?;
        schema::prepare(&writer, &tables, may_create).await?;
        Ok(SqliteStore { pool: self.pool, writer, tables })
    }
}

async fn check_durability(pool: &SqlitePool) -> Result<(), StoreError> {
    let operation = "check the durability settings of SQLite";
    let pragma = async |name: &'static str| -> Result<sqlx::sqlite::SqliteRow, StoreError> {
        sqlx::query(name).fetch_one(pool).await.map_err(|error| store_error(operation, error))
    };
    let mode: String =
        pragma("PRAGMA journal_mode").await?.try_get(0).map_err(|error| store_error(operation, error))?;
    if mode != "wal" {
        return Err(StoreError::not_applied(
            operation,
            format!(
                "journal_mode is {mode}, and must be wal: open the pool with SqliteConnectOptions::journal_mode(SqliteJournalMode::Wal) on a file"
            ),
        ));
    }
    let synchronous: i64 =
        pragma("PRAGMA synchronous").await?.try_get(0).map_err(|error| store_error(operation, error))?;
    if synchronous < 2 {
        return Err(StoreError::not_applied(
            operation,
            "synchronous is below FULL, so a power cut could lose an acknowledged step: open the pool with SqliteConnectOptions::synchronous(SqliteSynchronous::Full)",
        ));
    }
    Ok(())
}
