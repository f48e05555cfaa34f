//! Opens a store: with names of its own, behind a pooler, with or without making the tables.

use std::fmt;

use sqlx::Pool;

use super::SqlStore;
use super::dialect::{Dialect, set_of};
use super::names::Names;
use crate::error::StoreError;

/// Opens an [`SqlStore`] that differs from what [`SqlStore::new`] opens.
///
/// A service whose role may not create tables, beside another service in one database:
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # async fn example(pool: sqlx::PgPool) -> Result<(), probity_idempotency::StoreError> {
/// use probity_idempotency::PostgresStore;
///
/// let store = PostgresStore::builder(pool).schema("payments").table_prefix("gateway_").verify().await?;
/// # Ok(()) }
/// ```
#[must_use = "nothing is opened before `build` or `verify`"]
pub struct SqlStoreBuilder<DB: Dialect> {
    pool: Pool<DB>,
    names: Names,
}

impl<DB: Dialect> SqlStoreBuilder<DB> {
    pub(crate) fn new(pool: Pool<DB>) -> Self {
        Self { pool, names: Names::default() }
    }

    /// Sets what the names of the tables begin with, which is `idempotency_` otherwise. Two stores with different prefixes
    /// do not see each other's records.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.names.prefix = prefix.into();
        self
    }

    /// Replaces the database's clock by an SQL expression: microseconds since 1970, `(SELECT now FROM my_clock)` for one.
    #[cfg(feature = "testing")]
    pub fn clock(mut self, sql: impl Into<String>) -> Self {
        self.names.clock = Some(sql.into());
        self
    }

    /// The SQL that makes the tables of this version with the names chosen here, for a role that may run it. The files it is
    /// made of are published with the crate, in `sql`.
    ///
    /// # Errors
    /// If a name cannot be used.
    pub fn ddl(&self) -> Result<String, StoreError> {
        self.names.check()?;
        Ok(DB::ddl(&self.names))
    }

    /// Opens the store. Creates the tables if they are missing, or upgrades them; if they are there, no right to create
    /// anything is needed. Concurrent starts wait for each other.
    ///
    /// # Cancel safety
    /// The tables are upgraded or not, never half.
    ///
    /// # Errors
    /// If a name cannot be used; if the database cannot be reached, holds tables of a release newer than the next one, or
    /// would forget what it acknowledged; if the role lacks a right.
    pub async fn build(self) -> Result<DB::Store, StoreError> {
        self.open(true).await.map(DB::store)
    }

    /// Opens the store like [`build`](Self::build), and never creates or changes a table.
    ///
    /// # Cancel safety
    /// Only reads.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build), and if tables of this version are missing.
    pub async fn verify(self) -> Result<DB::Store, StoreError> {
        self.open(false).await.map(DB::store)
    }

    pub(super) async fn open(self, may_create: bool) -> Result<SqlStore<DB>, StoreError> {
        self.names.check()?;
        let names = DB::prepare(&self.pool, self.names, may_create).await?;
        let set = set_of::<DB>(&names);
        Ok(SqlStore { pool: self.pool, set })
    }
}

#[cfg(feature = "postgres")]
impl SqlStoreBuilder<sqlx::Postgres> {
    /// The schema of the tables, which must exist. By default it is the one in which the search path finds them, or the
    /// first one of the search path if it finds none. Either way the statements name it from then on.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.names.schema = Some(schema.into());
        self
    }

    /// The pool leads to a pooler such as PgBouncer, in session or in transaction mode.
    ///
    /// Each statement of the store then runs in a transaction of its own, and is not prepared by name: three round trips
    /// more for each batch of calls, so connect directly where you can. Statements in the caller's transactions are not
    /// prepared by name either.
    pub fn behind_pooler(mut self) -> Self {
        self.names.behind_pooler = true;
        self
    }
}

impl<DB: Dialect> fmt::Debug for SqlStoreBuilder<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStoreBuilder").field("names", &self.names).finish_non_exhaustive()
    }
}
