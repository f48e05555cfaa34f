//! The store in PostgreSQL: many workers on many machines, one statement per batch.
//!
//! Invariant: every statement is fenced by itself, so READ COMMITTED is enough and nothing is
//! retried for serialization. The engine writes through sessions of its own: they insist on
//! `synchronous_commit`, keep the plans that use the keys (a plan made while the tables were empty
//! would scan them for ever), and wait for no lock and no answer without limit.

mod builder;
mod columns;
mod local;
mod schema;
mod session;
mod sql;
mod starts;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, join};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::rows::{self, definitions, of_commit, store_error};
use super::tables::Tables;
use super::{LocalStore, SagaStore, StartIn, StartStatement};
use crate::error::StoreError;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
pub use builder::PostgresStoreBuilder;
use columns::{bind_appends, bind_decided, bind_many, bind_writes, millis};
use starts::inserted;

/// Keeps sagas in PostgreSQL.
///
/// It opens connections of its own beside the given pool, which it leaves to the application:
///
/// | for | at most | opened by |
/// |---|---|---|
/// | results, starts, claims and reads | as many as the pool, from 4 to 8 | the pool's connect options and our settings |
/// | the worker's lease | 1 | the same |
/// | local steps | as many as the pool, up to 8 | the pool's connect options and hooks, without our settings |
///
/// [`builder`](Self::builder) sets other limits. The hooks of the pool do not run for the first two.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    own: PgPool,
    lease: PgPool,
    /// For local steps.
    local: PgPool,
    /// When a connection last failed: the others may be broken too.
    failed: Arc<Mutex<Option<Instant>>>,
    tables: Tables,
    /// Behind a pooler: how the transaction of each statement begins.
    begin: Option<Arc<str>>,
}

/// Above the server's own limit: it has answered by then, unless it cannot be reached.
const ANSWER: Duration = Duration::from_secs(20);

/// The time for which connections are tested after one failed.
const SUSPICION: Duration = Duration::from_secs(30);

impl PostgresStore {
    /// Connects to the database of `pool`, checks that it keeps what it acknowledges, and makes the tables if they are
    /// missing. If they are there, the role needs no right to create anything.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// The errors of [`PostgresStoreBuilder::build`].
    pub async fn new(pool: PgPool) -> Result<Self, StoreError> {
        Self::builder(pool).build().await
    }

    /// Opens the store as [`new`](Self::new) does, but never creates or changes a table.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// The errors of [`PostgresStoreBuilder::verify`].
    pub async fn verify(pool: PgPool) -> Result<Self, StoreError> {
        Self::builder(pool).verify().await
    }

    /// Opens a store with other names, other limits, or a pooler between.
    pub fn builder(pool: PgPool) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(pool)
    }

    /// Tells whether a session may keep statements prepared by name.
    fn named(&self) -> bool {
        self.begin.is_none()
    }

    /// One of [`sql`]'s statements, for the tables of this store.
    fn query(&self, statement: &'static str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(self.tables.sql(statement)).persistent(self.named())
    }

    async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.rows_of(&self.own, query).await
    }

    /// Every statement goes this way. One that is never answered costs its connection, not its caller for ever.
    async fn rows_of(
        &self,
        pool: &PgPool,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut connection = self.connection(pool).await?;
        let answer = match timeout(ANSWER, self.answer(&mut connection, query)).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                drop(connection.detach());
                let silence = "the server does not answer";
                Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, silence)))
            }
        };
        if let Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) = answer {
            *self.failed() = Some(Instant::now());
        }
        answer
    }

    async fn answer(
        &self,
        connection: &mut PgConnection,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let Some(begin) = &self.begin else { return query.fetch_all(connection).await };
        let mut tx = connection.begin_with(AssertSqlSafe(Arc::clone(begin))).await?;
        let rows = query.fetch_all(&mut *tx).await?;
        tx.commit().await.map_err(of_commit)?;
        Ok(rows)
    }

    /// Not tested before each use, which would be one more round trip, but for a while after one failed.
    async fn connection(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        loop {
            let mut connection = pool.acquire().await?;
            let suspect = self.failed().is_some_and(|failed| failed.elapsed() < SUSPICION);
            if !suspect || matches!(timeout(ANSWER, connection.ping()).await, Ok(Ok(()))) {
                return Ok(connection);
            }
            drop(connection.detach());
        }
    }

    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets sagas that ended as `completed` or `compensated` longer than `after` ago: at most `limit`, oldest
    /// first, with their steps. Answers how many; call it again until that is less than `limit`. Sagas that an operator
    /// aborted stay, because they record open effects. Audit rows stay, too.
    ///
    /// A business id that was forgotten can be started again, so keep sagas for as long as a caller may repeat one.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the store cannot be used.
    pub async fn purge(&self, after: Duration, limit: u32) -> Result<u64, StoreError> {
        let purge = self.query(sql::PURGE).bind(millis(after)).bind(i64::from(limit));
        let gone = self.rows(purge).await.map_err(|error| store_error("purge finished sagas", error))?;
        Ok(gone.len() as u64)
    }

    /// Claims by one statement and loads by the next ones, so a decision may come between them: what it took away again
    /// is not this worker's to drive.
    async fn claim_all(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let failed = |error| store_error("claim sagas", error);
        let ids = self.claim_ids(request).await.map_err(failed)?;
        // The sagas are claimed, even if loading them fails.
        let journals = self.journals(ids).await.map_err(|error| failed(error).after_a_write())?;
        Ok(journals.into_iter().filter(|found| found.instance.owner == Some(request.worker)).collect())
    }

    async fn claim_ids(&self, request: &ClaimRequest) -> Result<Vec<Uuid>, sqlx::Error> {
        let claim = self
            .query(sql::CLAIM)
            .bind(request.worker.as_uuid())
            .bind(uuids(request.own.iter().copied()))
            .bind(definitions(&request.runnable))
            .bind(i64::from(request.limit))
            .bind(i64::from(request.stalled_max))
            .bind(i64::from(request.suspect_at))
            .bind(i64::from(request.suspects));
        let taken = self.rows(claim).await?;
        let mut ids = Vec::with_capacity(taken.len());
        for row in taken {
            let (id, status): (Uuid, String) = (row.try_get("id")?, row.try_get("status")?);
            if status == "paused" {
                super::tell_of_poison(id, row.try_get("business_type")?, row.try_get("business_id")?);
            } else {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    async fn journals(&self, ids: Vec<Uuid>) -> Result<Vec<Journal>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let instances = self.rows(self.query(sql::INSTANCES).bind(&ids)).await?;
        let steps = self.rows(self.query(sql::STEPS).bind(&ids)).await?;
        Ok(rows::journals(&instances, &steps))
    }

    async fn apply_batch(&self, records: &[Record]) -> Result<Vec<Verdict>, sqlx::Error> {
        let (appends, writes): (Vec<&Record>, Vec<&Record>) =
            records.iter().partition(|record| record.only_appends());
        let (mut verdicts, mut written) = (HashMap::with_capacity(records.len()), HashMap::new());
        // On two connections; both end before one of them fails the batch, so that none is cut off.
        let (appended, wrote) =
            join(self.append(appends, &mut verdicts), self.write(writes, &mut written)).await;
        appended.and(wrote)?;
        verdicts.extend(written);
        let refused: HashMap<SagaId, &Record> = records
            .iter()
            .map(|record| (record.saga, record))
            .filter(|(saga, _)| !verdicts.contains_key(saga))
            .collect();
        if !refused.is_empty() {
            let ids = uuids(refused.keys().copied());
            let mut again = Vec::new();
            for row in &self.rows(self.query(sql::POSITIONS).bind(ids)).await? {
                let saga = id(row)?;
                let Some(record) = refused.get(&saga) else { continue };
                let (epoch, write_no): (i64, i64) = (row.try_get("lease_epoch")?, row.try_get("write_no")?);
                let status: &str = row.try_get("status")?;
                if record.epoch == epoch && record.write_no <= write_no {
                    verdicts.insert(saga, Verdict::Applied(rows::requests(row)?));
                } else if record.epoch == epoch && record.only_appends() && status == record.from.as_str() {
                    // The saga's row has to change, too.
                    again.push(*record);
                }
            }
            self.write(again, &mut verdicts).await?;
        }
        Ok(records.iter().map(|record| verdicts.remove(&record.saga).unwrap_or(Verdict::Fenced)).collect())
    }

    async fn append(
        &self,
        records: Vec<&Record>,
        verdicts: &mut HashMap<SagaId, Verdict>,
    ) -> Result<(), sqlx::Error> {
        if records.is_empty() {
            return Ok(());
        }
        self.written(bind_appends(self.query(sql::APPEND), &records), verdicts).await
    }

    /// Writes the rows of sagas; those that passed get their verdict.
    async fn write(
        &self,
        records: Vec<&Record>,
        verdicts: &mut HashMap<SagaId, Verdict>,
    ) -> Result<(), sqlx::Error> {
        let (most, several): (Vec<&Record>, Vec<&Record>) =
            records.into_iter().partition(|record| record.change.steps.len() <= 1);
        if !most.is_empty() {
            self.written(bind_writes(self.query(sql::APPLY), &most), verdicts).await?;
        }
        if !several.is_empty() {
            self.written(bind_many(self.query(sql::APPLY_SEVERAL), &several), verdicts).await?;
        }
        Ok(())
    }

    async fn written(
        &self,
        statement: Query<'_, Postgres, PgArguments>,
        verdicts: &mut HashMap<SagaId, Verdict>,
    ) -> Result<(), sqlx::Error> {
        for row in &self.rows(statement).await? {
            verdicts.insert(id(row)?, Verdict::Applied(rows::requests(row)?));
        }
        Ok(())
    }

    async fn decide(&self, intervention: &Intervention) -> Result<Intervened, sqlx::Error> {
        let change = intervention.change.as_ref();
        let query = self
            .query(sql::DECIDE)
            .bind(intervention.saga.as_uuid())
            .bind(intervention.row_version)
            .bind(change.is_some())
            .bind(change.map(|change| change.status.as_str()))
            .bind(change.and_then(|change| change.resume_status).map(|status| status.as_str()))
            .bind(change.and_then(|change| change.reason.clone()))
            .bind(change.map(|change| i64::from(change.current_step)))
            .bind(change.map(|change| i64::from(change.unresolved)))
            .bind(&intervention.request_cancel)
            .bind(intervention.request_pause)
            .bind(&intervention.actor)
            .bind(&intervention.action)
            .bind(&intervention.reason)
            .bind(intervention.before.as_str());
        let steps = change.map_or(&[][..], |change| &change.steps);
        let query = bind_decided(query, steps).bind(intervention.unless_driven);
        let done = self.rows(query).await?;
        Ok(if done.is_empty() { Intervened::Stale } else { Intervened::Applied })
    }

    async fn ids(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<Uuid>, sqlx::Error> {
        self.rows(query).await?.iter().map(|row| row.try_get("id")).collect()
    }
}

fn uuids(ids: impl IntoIterator<Item = SagaId>) -> Vec<Uuid> {
    ids.into_iter().map(|id| id.as_uuid()).collect()
}

fn id(row: &PgRow) -> Result<SagaId, sqlx::Error> {
    row.try_get::<Uuid, _>("id").map(SagaId::from)
}

/// Unstorable data, a constraint, a trigger or a view that refuses, or a limit of the server: the record's own fault.
fn is_about_the_record(error: &sqlx::Error) -> bool {
    const ITS_OWN_FAULT: [&str; 6] = ["21", "22", "23", "44", "54", "P0"];
    let answer = error.as_database_error().filter(|answer| !rows::ends_the_session(*answer));
    let code = answer.and_then(|answer| answer.code());
    code.is_some_and(|code| ITS_OWN_FAULT.iter().any(|class| code.starts_with(class)))
}

#[async_trait]
impl SagaStore for PostgresStore {
    fn backend(&self) -> &'static str {
        <Postgres as sqlx::Database>::NAME
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        Some(self)
    }

    fn start_statement(&self) -> Option<StartStatement> {
        Some(StartStatement { sql: self.tables.text(sql::INSERT_ONE), named: self.named() })
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        let failed = |error| store_error("renew a worker's lease", error);
        let beat = self
            .query(sql::BEAT)
            .bind(worker.id.as_uuid())
            .bind(i64::from(worker.pid))
            .bind(millis(worker.lease));
        let rows = self.rows_of(&self.lease, beat).await.map_err(failed)?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
        Ok(if row.try_get("held").map_err(failed)? { Heartbeat::Held } else { Heartbeat::Lapsed })
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        let failed = |error| store_error("retire a worker", error);
        // This statement comes first: sagas that the second cannot release then have no living owner.
        let gone = self.query(sql::FORGET_WORKER).bind(worker.as_uuid());
        self.rows_of(&self.lease, gone).await.map_err(failed)?;
        let released = self.rows(self.query(sql::RELEASE_ALL).bind(worker.as_uuid())).await;
        Ok(released.map_err(failed)?.len() as u64)
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        for definition in definitions {
            let define = self
                .query(sql::DEFINE)
                .bind(&definition.fingerprint)
                .bind(&definition.saga_type)
                .bind(i64::from(definition.version))
                .bind(&definition.steps);
            self.rows(define).await.map_err(|error| store_error("record the saga definitions", error))?;
        }
        Ok(())
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.insert_all(sagas).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.claim_all(request).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        let ids = self.ids(self.query(sql::OWNED).bind(worker.as_uuid())).await;
        let ids = ids.map_err(|error| store_error("list a worker's sagas", error))?;
        Ok(ids.into_iter().map(SagaId::from).collect())
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        let rows = self.rows(self.query(sql::ASKED).bind(worker.as_uuid())).await;
        let asked = rows.and_then(|rows| rows.iter().map(rows::asked).collect());
        asked.map_err(|error| store_error("ask for requests of operators", error))
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        match self.apply_batch(records).await {
            Ok(verdicts) => return Ok(verdicts),
            Err(error) if is_about_the_record(&error) => {}
            Err(error) => return Err(store_error("write saga results", error)),
        }
        // One record is bad: write each by itself. A record that was written before is answered as repeated.
        let mut verdicts = Vec::with_capacity(records.len());
        for record in records {
            verdicts.push(match self.apply_batch(std::slice::from_ref(record)).await {
                Ok(mut verdicts) => verdicts.pop().unwrap_or(Verdict::Fenced),
                Err(error) if is_about_the_record(&error) => Verdict::Refused(error.to_string()),
                Err(error) => {
                    let error = store_error("write a saga result", error);
                    return Err(if verdicts.is_empty() { error } else { error.after_a_write() });
                }
            });
        }
        Ok(verdicts)
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.decide(intervention).await.map_err(|error| store_error("apply an operator's decision", error))
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.journals(uuids(ids.iter().copied())).await.map_err(|error| store_error("load sagas", error))
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        let failed = |error| store_error("find a saga", error);
        let ids = self.ids(self.query(sql::FIND).bind(business_id).bind(saga_type)).await.map_err(failed)?;
        Ok(self.journals(ids).await.map_err(failed)?.pop())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        let failed = |error| store_error("list sagas", error);
        let query = self
            .query(sql::LIST)
            .bind(filter.before.map(|id| id.as_uuid()))
            .bind(filter.status.map(|status| status.as_str()))
            .bind(&filter.saga_type)
            .bind(if filter.limit == 0 { 100 } else { i64::from(filter.limit) });
        let ids = self.ids(query).await.map_err(failed)?;
        let mut journals = self.journals(ids).await.map_err(failed)?;
        journals.sort_by_key(|journal| std::cmp::Reverse(journal.instance.id));
        Ok(journals.into_iter().map(|journal| journal.instance).collect())
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        let rows = self.rows(self.query(sql::RESTED).bind(uuids(ids.iter().copied()))).await;
        Ok(rows::settled(&rows.map_err(|error| store_error("ask which sagas came to rest", error))?))
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        let rows = self.rows(self.query(sql::CENSUS).bind(definitions(runnable))).await;
        let counted = rows.and_then(|rows| rows.iter().map(rows::open_counts).collect());
        counted.map_err(|error| store_error("count the open sagas", error))
    }
}

impl StartIn for Postgres {
    fn insert_in<'c, E>(
        executor: E,
        statement: Option<StartStatement>,
        saga: NewSaga,
    ) -> BoxFuture<'c, Result<Inserted, StoreError>>
    where
        E: sqlx::Executor<'c, Database = Self> + 'c,
    {
        let usual = || StartStatement { sql: sql::INSERT_ONE.into(), named: true };
        let StartStatement { sql, named } = statement.unwrap_or_else(usual);
        Box::pin(async move {
            let row = sqlx::query(AssertSqlSafe(sql))
                .persistent(named)
                .bind(saga.id.as_uuid())
                .bind(&saga.business_id)
                .bind(&saga.saga_type)
                .bind(&saga.definition)
                .bind(saga.input.as_json())
                .bind(&saga.input_hash)
                .bind(saga.owner.as_uuid())
                .bind(&saga.trace)
                .fetch_one(executor)
                .await;
            row.and_then(|row| inserted(&saga, &row)).map_err(|error| store_error("insert a saga", error))
        })
    }
}

#[cfg(feature = "testing")]
pub mod plans;
