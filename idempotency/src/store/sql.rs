//! The SQL stores: one implementation, one table, and a dialect per database.
//!
//! Invariant: every decision is one guarded statement of the database, by the database's clock. When a statement
//! touched nothing, the record is read and the pure state machine says why; if it says "you may", another was faster
//! and the statement is tried again.

mod builder;
pub(crate) mod connection;
pub(crate) mod dialect;
pub(crate) mod names;
pub(crate) mod schema;
pub(crate) mod statements;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Database, Pool};

pub use builder::SqlStoreBuilder;
use connection::Own;
pub use dialect::Dialect;
use dialect::{Running, Value, driver::Driver, set_of};
use names::{Names, Set, Sql};

use crate::core::claim::{Answer, Claim, Grant, Renewed, Resolution, State, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::machine::{self, Decision, Entry, RELEASED_FOR, Write};
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot, SqlTables};
use crate::token::Holder;

/// The number of times that a statement is tried again after it lost a race. Each round means another caller made
/// progress on this very record.
const ROUNDS: u32 = 8;

/// The `Retry-After` of a claim that lost every round: other callers compete for the record, which is free again at
/// once.
const OUTRUN: Duration = Duration::from_millis(1);

/// Records in the table `idempotency_records` of an SQL database.
///
/// It is the store to choose for money: with [`Lease::complete_in`](crate::Lease::complete_in) the answer commits in
/// the same transaction as the business write.
pub struct SqlStore<DB: Dialect> {
    pub(crate) pool: Pool<DB>,
    pub(crate) set: &'static Set,
}

impl<DB: Dialect> SqlStore<DB> {
    /// A store in `pool`'s database. Creates its tables if they are missing, or upgrades them; if they are there, no right
    /// to create anything is needed. Concurrent starts wait for each other.
    ///
    /// # Cancel safety
    /// The tables are upgraded or not, never half.
    ///
    /// # Errors
    /// If the database cannot be reached, holds tables of a release newer than the next one, or would forget what it
    /// acknowledged; if the role lacks a right.
    pub async fn new(pool: Pool<DB>) -> Result<Self, StoreError> {
        Self::builder(pool).open(true).await
    }

    /// A store like that of [`new`](Self::new), in a database whose tables another program makes: it never creates or
    /// changes one. The SQL of each version and the grants a service needs are published with the crate, in `sql`.
    ///
    /// # Cancel safety
    /// Only reads.
    ///
    /// # Errors
    /// The errors of [`new`](Self::new), and if tables of this version are missing.
    pub async fn verify(pool: Pool<DB>) -> Result<Self, StoreError> {
        Self::builder(pool).open(false).await
    }

    /// A store with other names, or behind a pooler.
    pub fn builder(pool: Pool<DB>) -> SqlStoreBuilder<DB> {
        SqlStoreBuilder::new(pool)
    }

    /// Claims inside the caller's transaction: the claim is only real when it commits.
    ///
    /// For inboxes: claim, work and [`complete_in`](Self::complete_in) in one transaction. A concurrent duplicate
    /// waits for that transaction inside the database. `on` is anything that executes SQL in the database that holds the
    /// records: `&mut *tx` of a `sqlx` transaction, or a wrapper around one. It is one statement, and it writes the
    /// record in any case.
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
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send + use<'e, 'c, E, DB>
    where
        E: sqlx::Executor<'c, Database = DB> + 'e,
    {
        let (running, claim) = (DB::returning(on, self.set.callers.claim_once, &claim_values(claim)), *claim);
        async move {
            let (entry, now) = running.await?.ok_or_else(contention)?;
            let is_ours = entry.state() == State::InFlight
                && entry.token == claim.token
                && entry.fingerprint == claim.fingerprint;
            if is_ours {
                let lease = Duration::from_micros(entry.lease_until.saturating_sub(now));
                return Ok(Answer::Acquired(Grant { fence: entry.fence, attempt: entry.attempt, lease }));
            }
            match machine::claim(Some(&entry), &claim, now, 0) {
                Decision::Answer(answer) => Ok(answer),
                Decision::Write(..) => Err(contention()),
            }
        }
    }

    /// Records the answer in the caller's transaction; see [`Lease::complete_in`](crate::Lease::complete_in).
    ///
    /// # Cancel safety
    /// The record is written only if the transaction commits.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`] if `holder` does not hold the record here: roll back. Other kinds if the database
    /// failed.
    pub fn complete_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<'e, 'c, E, DB>
    where
        E: sqlx::Executor<'c, Database = DB> + 'e,
    {
        complete_in(on, Some(SqlTables(self.set)), holder, recording, retention)
    }

    /// Gives the key back in the caller's transaction.
    ///
    /// # Cancel safety
    /// The claim is given back only if the transaction commits.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`] if `holder` does not hold the record here, or has marked it. Other kinds if the
    /// database failed.
    pub fn release_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        holder: &Holder,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<'e, 'c, E, DB>
    where
        E: sqlx::Executor<'c, Database = DB> + 'e,
    {
        let values = [
            Value::Bytes(holder.record.as_bytes()),
            Value::Bytes(holder.token.as_bytes()),
            Value::Int(machine::micros(RELEASED_FOR)),
        ];
        let running = DB::execute(on, self.set.callers.release, &values);
        async move { ensure_held(running.await?) }
    }

    /// Runs a guarded write by a holder, or says why it must not be.
    async fn write(
        &self,
        holder: &Holder,
        sql: Sql,
        rest: &[Value<'_>],
        write: &Write<'_>,
    ) -> Result<Written, StoreError> {
        let mut values = vec![Value::Bytes(holder.record.as_bytes()), Value::Bytes(holder.token.as_bytes())];
        values.extend_from_slice(rest);
        self.guarded(holder.record, sql, &values, |entry, _| write.verdict(entry, holder.token)).await
    }

    /// Runs `sql`; when it touched nothing, `verdict` says why. No verdict means the record changed in between.
    async fn guarded(
        &self,
        record: RecordId,
        sql: Sql,
        values: &[Value<'_>],
        verdict: impl Fn(&Entry, u64) -> Option<Written> + Send,
    ) -> Result<Written, StoreError> {
        let mut connection = self.connection().await?;
        let read = self.set.own.read;
        let written = guarded_on::<DB>(connection.begin().await?, record, sql, read, values, verdict).await;
        connection.end(written).await
    }

    pub(crate) async fn connection(&self) -> Result<Own<DB>, StoreError> {
        let acquired = self.pool.acquire().await;
        let connection = acquired.map_err(|error| DB::classify(error).nothing_written())?;
        Ok(Own { connection, asked: false, behind_pooler: self.set.behind_pooler })
    }
}

/// Records in `tables`, or in those of the usual names if they are nowhere said, or another database's.
pub(crate) fn complete_in<'e, 'c: 'e, E>(
    on: E,
    tables: Option<SqlTables>,
    holder: &Holder,
    recording: &Recording,
    retention: Duration,
) -> Running<'e, ()>
where
    E: sqlx::Executor<'c> + 'e,
    E::Database: Dialect,
{
    let headers = recording.encode_headers();
    let values = [
        Value::Bytes(holder.record.as_bytes()),
        Value::Bytes(holder.token.as_bytes()),
        Value::Int(machine::micros(retention)),
        Value::Int(u64::from(recording.status())),
        Value::Bytes(&headers),
        Value::Bytes(recording.bytes()),
    ];
    let set = tables.map(|tables| tables.0).filter(|set| set.database == E::Database::NAME);
    let set = set.unwrap_or_else(|| set_of::<E::Database>(&Names::default()));
    let running = E::Database::execute(on, set.callers.complete, &values);
    Box::pin(async move { ensure_held(running.await?) })
}

#[async_trait]
impl<DB: Dialect> IdempotencyManager for SqlStore<DB> {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        let mut connection = self.connection().await?;
        let answer = claim_on::<DB>(connection.begin().await?, self.set, claim).await;
        connection.end(answer).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let mut connection = self.connection().await?;
        let renewed = renew_on::<DB>(connection.begin().await?, self.set, holder, lease).await;
        connection.end(renewed).await
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.write(holder, self.set.own.mark, &[], &Write::Mark).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let headers = recording.encode_headers();
        let values = [
            Value::Int(machine::micros(retention)),
            Value::Int(u64::from(recording.status())),
            Value::Bytes(&headers),
            Value::Bytes(recording.bytes()),
        ];
        let write = Write::Complete(recording, retention);
        self.write(holder, self.set.own.complete, &values, &write).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let values = [
            Value::Int(machine::micros(retention)),
            Value::Int(u64::from(tombstone.status)),
            Value::MaybeBytes(tombstone.location.as_deref()),
            Value::Text(tombstone.reason.as_str()),
        ];
        let write = Write::Tombstone(tombstone, retention);
        self.write(holder, self.set.own.tombstone, &values, &write).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        let values = [Value::Int(machine::micros(RELEASED_FOR))];
        self.write(holder, self.set.own.release, &values, &Write::Release).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let (sql, keep, recording) = match resolution {
            Resolution::Done(recording) => (self.set.own.resolve_done, retention, recording.clone()),
            Resolution::Absent => (self.set.own.resolve_absent, RELEASED_FOR, Recording::default()),
        };
        let headers = recording.encode_headers();
        let mut values =
            vec![Value::Bytes(record.as_bytes()), Value::Int(fence.0), Value::Int(machine::micros(keep))];
        if matches!(resolution, Resolution::Done(_)) {
            values.extend([
                Value::Int(u64::from(recording.status())),
                Value::Bytes(&headers),
                Value::Bytes(recording.bytes()),
            ]);
        }
        self.guarded(record, sql, &values, |entry, now| {
            machine::resolve_verdict(entry, fence, resolution, now)
        })
        .await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        let mut connection = self.connection().await?;
        let found = DB::read(connection.begin().await?, self.set.own.read, record.as_bytes()).await;
        let found = connection.end(found).await.map_err(StoreError::nothing_written)?;
        Ok(found.filter(|(entry, now)| !entry.is_gone(*now)).map(|(entry, now)| Snapshot::of(&entry, now)))
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        let mut connection = self.connection().await?;
        let limit = [Value::Int(u64::from(limit))];
        let purged = DB::touch(connection.begin().await?, self.set.own.purge, &limit).await;
        connection.end(purged).await
    }

    fn sql_tables(&self) -> Option<SqlTables> {
        Some(SqlTables(self.set))
    }
}

impl<DB: Dialect> Clone for SqlStore<DB> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), set: self.set }
    }
}

impl<DB: Dialect> fmt::Debug for SqlStore<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlStore<{}>", DB::NAME)
    }
}

fn claim_values(claim: &Claim) -> [Value<'_>; 7] {
    [
        Value::Bytes(claim.record.as_bytes()),
        Value::Bytes(claim.token.as_bytes()),
        Value::Bytes(claim.fingerprint.as_bytes()),
        Value::Text(claim.effects.as_str()),
        Value::Int(machine::micros(claim.terms.lease)),
        Value::Int(machine::micros(claim.terms.lease_cap.max(claim.terms.lease))),
        Value::Int(machine::micros(claim.terms.retention)),
    ]
}

async fn claim_on<DB: Dialect>(
    on: &mut DB::Connection,
    set: &'static Set,
    claim: &Claim,
) -> Result<Answer, StoreError> {
    let sql = &set.own;
    for _ in 0..ROUNDS {
        if let Some([fence, attempt, left]) = DB::integers(&mut *on, sql.claim, &claim_values(claim)).await? {
            let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
            return Ok(Answer::Acquired(Grant {
                fence: Fence(fence),
                attempt,
                lease: Duration::from_micros(left),
            }));
        }
        let found = DB::read(&mut *on, sql.read, claim.record.as_bytes()).await?;
        let Some((entry, now)) = found else { continue };
        if let Decision::Answer(answer) = machine::claim(Some(&entry), claim, now, 0) {
            return Ok(answer);
        }
    }
    // Every time the statement ran, another attempt held the record; every time it was read, that one was over.
    Ok(Answer::InFlight { retry_after: OUTRUN })
}

async fn renew_on<DB: Dialect>(
    on: &mut DB::Connection,
    set: &'static Set,
    holder: &Holder,
    lease: Duration,
) -> Result<Renewed, StoreError> {
    let sql = &set.own;
    let (record, token) = (holder.record.as_bytes(), holder.token.as_bytes());
    let values = [Value::Bytes(record), Value::Bytes(token), Value::Int(machine::micros(lease))];
    for _ in 0..ROUNDS {
        if let Some([left]) = DB::integers(&mut *on, sql.renew, &values).await? {
            return Ok(Renewed::Held(Duration::from_micros(left)));
        }
        let Some((mut entry, now)) = DB::read(&mut *on, sql.read, record).await? else {
            return Ok(Renewed::Missing);
        };
        match machine::renew(Some(&mut entry), holder.token, lease, now) {
            Renewed::Held(_) => {}
            refused => return Ok(refused),
        }
    }
    Err(contention())
}

async fn guarded_on<DB: Dialect>(
    on: &mut DB::Connection,
    record: RecordId,
    sql: Sql,
    read: Sql,
    values: &[Value<'_>],
    verdict: impl Fn(&Entry, u64) -> Option<Written> + Send,
) -> Result<Written, StoreError> {
    for _ in 0..ROUNDS {
        if DB::touch(&mut *on, sql, values).await? > 0 {
            return Ok(Written::Applied);
        }
        let found = DB::read(&mut *on, read, record.as_bytes()).await?;
        let Some((entry, now)) = found else { return Ok(Written::Missing) };
        if entry.is_gone(now) {
            return Ok(Written::Missing);
        }
        if let Some(written) = verdict(&entry, now) {
            return Ok(written);
        }
    }
    Err(contention())
}

fn ensure_held(rows: u64) -> Result<(), StoreError> {
    if rows > 0 { Ok(()) } else { Err(StoreError::lease_lost()) }
}

/// Every time the statement ran, it touched nothing.
fn contention() -> StoreError {
    StoreError::not_applied(ErrorKind::Unavailable, "the record kept changing under the statement")
}
