//! The store whose concurrent calls share statements.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgPool, Postgres};

use super::changes::{Change, Changed, Kind};
use super::group_commit::GroupCommit;
use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot, SqlTables};
use crate::store::sql::{SqlStore, SqlStoreBuilder};
use crate::token::Holder;

/// Records in PostgreSQL; see [`SqlStore`].
///
/// Concurrent calls of one store share statements and flushes: an idle store sends a call at once, a busy one sends
/// together what came since, and each call gets its own answer. Clones of a store share; stores that were made
/// separately do not.
///
/// The statements take two connections of the pool under load, four while full ones wait. Calls that cannot share, such
/// as duplicates of an open transaction, take up to a quarter of the pool for claims and as many for writes by
/// holders, at least one each, and one per record.
///
/// A call waits for a locked row 2 s at most, then it fails with [`ErrorKind::Unavailable`] and nothing is changed. A
/// statement without an answer after 3 s fails with [`ErrorKind::Timeout`], and its connection is closed.
///
/// ```no_run
/// # async fn example(pool: sqlx::PgPool) -> Result<(), probity_idempotency::StoreError> {
/// let store = probity_idempotency::PostgresStore::new(pool).await?; // creates its tables, once, under a lock
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    /// Sends each call as a statement of its own; an operator's calls go this way.
    direct: SqlStore<Postgres>,
    claims: GroupCommit<Claim>,
    /// Writes by holders.
    changes: GroupCommit<Change>,
}

impl PostgresStore {
    pub(super) fn around(direct: SqlStore<Postgres>) -> Self {
        Self { claims: GroupCommit::new(direct.clone()), changes: GroupCommit::new(direct.clone()), direct }
    }

    /// Opens a store in `pool`'s database as [`SqlStore::new`] does: creates its tables if they are missing, or upgrades
    /// them.
    ///
    /// # Cancel safety
    /// The tables are upgraded or not, never half.
    ///
    /// # Errors
    /// The errors of [`SqlStore::new`].
    pub async fn new(pool: PgPool) -> Result<Self, StoreError> {
        SqlStore::new(pool).await.map(Self::around)
    }

    /// Opens a store in a database whose tables another program makes: it never creates or changes one.
    ///
    /// # Cancel safety
    /// Only reads.
    ///
    /// # Errors
    /// The errors of [`SqlStore::verify`].
    pub async fn verify(pool: PgPool) -> Result<Self, StoreError> {
        SqlStore::verify(pool).await.map(Self::around)
    }

    /// Opens a store with other names, or behind a pooler.
    pub fn builder(pool: PgPool) -> SqlStoreBuilder<Postgres> {
        SqlStoreBuilder::new(pool)
    }

    /// Sends every call as a statement of its own.
    ///
    /// Choose it when another pooler already multiplexes statements, or when first runs rarely overlap: a lone
    /// one keeps 0.70 of this pace when it is shared. Replays are faster shared, lone ones 2.7 times. A call waits for a
    /// locked row 2 s at most, and keeps a connection of its own in that time. There is no other limit; a call that is dropped
    /// closes the connection it waits on.
    #[must_use]
    pub fn direct(self) -> SqlStore<Postgres> {
        self.direct
    }

    /// Claims inside the caller's transaction; see [`SqlStore::claim_in`].
    ///
    /// # Cancel safety
    /// The claim stands only if the transaction commits.
    ///
    /// # Errors
    /// If the database failed.
    pub fn claim_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        claim: &Claim,
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send + use<'e, 'c, E>
    where
        E: sqlx::Executor<'c, Database = Postgres> + 'e,
    {
        self.direct.claim_in(on, claim)
    }

    /// Records the answer in the caller's transaction; see [`SqlStore::complete_in`].
    ///
    /// # Cancel safety
    /// The record is written only if the transaction commits.
    ///
    /// # Errors
    /// The errors of [`SqlStore::complete_in`]: roll back.
    pub fn complete_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<'e, 'c, E>
    where
        E: sqlx::Executor<'c, Database = Postgres> + 'e,
    {
        self.direct.complete_in(on, holder, recording, retention)
    }

    /// Gives the key back in the caller's transaction; see [`SqlStore::release_in`].
    ///
    /// # Cancel safety
    /// The claim is given back only if the transaction commits.
    ///
    /// # Errors
    /// The errors of [`SqlStore::release_in`].
    pub fn release_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        holder: &Holder,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<'e, 'c, E>
    where
        E: sqlx::Executor<'c, Database = Postgres> + 'e,
    {
        self.direct.release_in(on, holder)
    }

    async fn write(&self, holder: &Holder, kind: Kind) -> Result<Written, StoreError> {
        match self.changes.submit(Change { holder: *holder, kind }).await? {
            Changed::Written(written) => Ok(written),
            Changed::Renewed(_) => Err(mixed_up()),
        }
    }
}

#[async_trait]
impl IdempotencyManager for PostgresStore {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        self.claims.submit(*claim).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        match self.changes.submit(Change { holder: *holder, kind: Kind::Renew(lease) }).await? {
            Changed::Renewed(renewed) => Ok(renewed),
            Changed::Written(_) => Err(mixed_up()),
        }
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.write(holder, Kind::Mark).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.write(holder, Kind::Complete(recording.clone(), retention)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.write(holder, Kind::Tombstone(tombstone.clone(), retention)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.write(holder, Kind::Release).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.direct.resolve(record, fence, resolution, retention).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.direct.get(record).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.direct.purge(limit).await
    }

    fn sql_tables(&self) -> Option<SqlTables> {
        self.direct.sql_tables()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresStore")
    }
}

fn mixed_up() -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, "a call got the answer of another kind of call")
}
