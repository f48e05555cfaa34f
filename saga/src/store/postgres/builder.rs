//! The builder of a store in PostgreSQL: names, connections, a pooler between, and who makes the tables.

use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions};

use super::{PostgresStore, local, schema, session};
use crate::error::StoreError;
use crate::store::rows::store_error;
use crate::store::tables::{Tables, USUAL_PREFIX};

/// Opens a [`PostgresStore`] that differs from what [`PostgresStore::new`] opens.
///
/// # Examples
///
/// A service whose role may not create tables, beside another service in one database:
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool) -> Result<(), probity_saga::store::StoreError> {
/// use probity_saga::PostgresStore;
///
/// let store = PostgresStore::builder(pool).schema("payments").connections(4).verify().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `build` or `verify`"]
pub struct PostgresStoreBuilder {
    pool: PgPool,
    schema: Option<String>,
    prefix: String,
    behind_pooler: bool,
    connections: u32,
    local_connections: u32,
}

/// The largest `max_connections` of a server. A pool makes room for all its connections when it is built.
const MOST: u32 = 262_143;

impl PostgresStoreBuilder {
    pub(super) fn new(pool: PgPool) -> Self {
        let most = pool.options().get_max_connections();
        Self {
            pool,
            schema: None,
            prefix: USUAL_PREFIX.into(),
            behind_pooler: false,
            connections: most.clamp(4, 8),
            local_connections: most.clamp(1, 8),
        }
    }

    /// The schema of the tables. By default it is the one in which the search path finds them; if it finds none, they
    /// are made in the first schema of the search path. Either way the statements name it from then on.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets the prefix of the names of all tables, views and indexes: `saga_`, unless it is chosen here. Two stores with
    /// different prefixes do not see each other's sagas.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The pool leads to a pooler such as PgBouncer, in session or in transaction mode.
    ///
    /// Each statement of the store then runs in a transaction of its own that sets what it needs, and is not prepared by
    /// name. That is two round trips more for each batch, so connect directly where you can. Also the statements of
    /// `Orchestrator::start_in` are then not prepared by name.
    pub fn behind_pooler(mut self) -> Self {
        self.behind_pooler = true;
        self
    }

    /// Limits the connections that the engine opens, beside one for the worker's lease alone: by default to as many as
    /// the given pool may have, but at least 4 and at most 8.
    pub fn connections(mut self, most: u32) -> Self {
        self.connections = most.max(1);
        self
    }

    /// Limits the connections that local steps open: by default to as many as the given pool may have, but at most 8.
    /// None is opened while no local step runs.
    pub fn local_connections(mut self, most: u32) -> Self {
        self.local_connections = most.max(1);
        self
    }

    /// The SQL that makes the tables of this version, for the names chosen here: for the person who may run it.
    ///
    /// # Errors
    /// If a name cannot be used.
    pub fn ddl(&self) -> Result<String, StoreError> {
        schema::ddl(&Tables::new(self.schema.as_deref(), &self.prefix)?)
    }

    /// Opens the store. Makes the tables, or those of a newer version, if they are missing; if none is missing, no right
    /// to create anything is needed.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If a name or a number of connections cannot be used; if the server cannot be reached, runs with `fsync=off`, or does not have the settings
    /// of the store in force; if the tables cannot be made, or the role lacks a right on them.
    pub async fn build(self) -> Result<PostgresStore, StoreError> {
        self.open(true).await
    }

    /// Opens the store as [`build`](Self::build) does, but never creates or changes a table.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build); and if the tables of this version are missing.
    pub async fn verify(self) -> Result<PostgresStore, StoreError> {
        self.open(false).await
    }

    async fn open(self, may_create: bool) -> Result<PostgresStore, StoreError> {
        Tables::new(self.schema.as_deref(), &self.prefix)?;
        if self.connections.max(self.local_connections) > MOST {
            let why = "a store takes at most 262,143 connections, which is the most that a server can have";
            return Err(StoreError::not_applied("connect to PostgreSQL", why));
        }
        let given = self.pool.connect_options().as_ref().clone();
        let options = session::asked_for(given.clone(), self.behind_pooler);
        session::look(&options, self.behind_pooler).await?;
        let connections = |most: u32| {
            let own = PgPoolOptions::new().max_connections(most).test_before_acquire(false);
            let own = own.acquire_timeout(session::CONNECT);
            if self.behind_pooler { own } else { session::checked(own) }
        };
        let own = connections(self.connections).connect_with(options.clone()).await;
        let own = own.map_err(|error| store_error("connect to PostgreSQL", error))?;
        refuse_fsync_off(&own).await?;
        let tables = schema::prepare(&own, self.schema.as_deref(), &self.prefix, may_create).await?;
        Ok(PostgresStore {
            lease: connections(1).connect_lazy_with(options),
            local: local::pool(&self.pool, given, self.local_connections),
            own,
            failed: std::sync::Arc::default(),
            tables,
            begin: self.behind_pooler.then(|| session::begin().into()),
        })
    }
}

async fn refuse_fsync_off(pool: &PgPool) -> Result<(), StoreError> {
    let operation = "check the durability settings of PostgreSQL";
    let shown = sqlx::raw_sql("SHOW fsync").fetch_one(pool).await.and_then(|row| row.try_get::<String, _>(0));
    let fsync = shown.map_err(|error| store_error(operation, error))?;
    if fsync == "off" {
        return Err(StoreError::not_applied(
            operation,
            "the server runs with fsync=off, so a power cut could lose an acknowledged step: turn it on",
        ));
    }
    Ok(())
}
