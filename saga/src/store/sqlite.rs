//! The store in SQLite: one file, no server, and the caller's own transactions beside it.
//!
//! Invariant: what is acknowledged survives a power cut, so the database runs WAL with
//! `synchronous=FULL`, or the store refuses it. A batch of results is one transaction; a record
//! that SQLite refuses costs only itself. SQLite has one writer, so one connection of the store writes
//! everything: tasks queue for it in the order they came, instead of polling for the lock of the file.

mod batch;
mod builder;
mod local;
mod schema;
mod sql;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, Transaction};

use super::rows::{self, definitions, json_list, store_error};
use super::tables::Tables;
use super::{LocalStore, SagaStore, StartIn, StartStatement};
use crate::error::StoreError;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
use batch::{Heads, Steps, modifier};
pub use builder::SqliteStoreBuilder;

/// Keeps sagas in SQLite. The pool's connections must use WAL and `synchronous=FULL`, by its connect options: reads go
/// through the given pool, and one more connection, opened by the same options, writes.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    writer: SqlitePool,
    tables: Tables,
}

impl SqliteStore {
    /// Checks the durability settings of the pool, and makes the tables if they are missing.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// The errors of [`SqliteStoreBuilder::build`].
    pub async fn new(pool: SqlitePool) -> Result<Self, StoreError> {
        Self::builder(pool).build().await
    }

    /// Opens the store as [`new`](Self::new) does, but never creates or changes a table.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// The errors of [`SqliteStoreBuilder::verify`].
    pub async fn verify(pool: SqlitePool) -> Result<Self, StoreError> {
        Self::builder(pool).verify().await
    }

    /// Opens a store with other names.
    pub fn builder(pool: SqlitePool) -> SqliteStoreBuilder {
        SqliteStoreBuilder::new(pool)
    }

    /// One of [`sql`]'s statements, for the tables of this store.
    fn query(&self, statement: &'static str) -> Query<'static, Sqlite, SqliteArguments> {
        sqlx::query(self.tables.sql(statement))
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
        self.forget(after, limit).await.map_err(|error| store_error("purge finished sagas", error))
    }

    async fn forget(&self, after: Duration, limit: u32) -> Result<u64, sqlx::Error> {
        let mut tx = self.begin().await?;
        let old = self
            .query(sql::OLD)
            .bind(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
            .bind(modifier(after).replacen('+', "-", 1))
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?;
        let ids = json_list(old.iter().map(|row| row.try_get("id")).collect::<Result<Vec<String>, _>>()?);
        self.query(sql::FORGET_STEPS).bind(&ids).execute(&mut *tx).await?;
        self.query(sql::FORGET).bind(&ids).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(old.len() as u64)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    async fn claim_in(&self, request: &ClaimRequest) -> Result<Vec<Journal>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        if self.claimable(&mut connection, request).await?.is_empty() {
            return Ok(Vec::new());
        }
        drop(connection);
        let mut tx = self.begin().await?;
        let found = self.claimable(&mut tx, request).await?;
        let taken = self
            .query(sql::CLAIM)
            .bind(json_list(found))
            .bind(request.worker.to_string())
            .bind(request.stalled_max)
            .fetch_all(&mut *tx)
            .await?;
        let (mut ids, mut parked) = (Vec::new(), Vec::new());
        for row in taken {
            let (id, status): (String, String) = (row.try_get("id")?, row.try_get("status")?);
            if status == "paused" {
                let names: (String, String) = (row.try_get("business_type")?, row.try_get("business_id")?);
                parked.push((id, names));
            } else {
                ids.push(id);
            }
        }
        let journals = self.load_all(&mut tx, &json_list(ids)).await?;
        tx.commit().await?;
        for (id, (saga_type, business_id)) in parked {
            super::tell_of_poison(id, &saga_type, &business_id);
        }
        Ok(journals)
    }

    async fn apply_batch(&self, records: &[Record]) -> Result<Vec<Verdict>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let mut verdicts = write(&self.tables, &mut tx, records, false).await?;
        let refused: Vec<&Record> =
            records.iter().filter(|record| !verdicts.contains_key(&record.saga)).collect();
        if !refused.is_empty() {
            let ids = json_list(refused.iter().map(|record| record.saga));
            let mut again = Vec::new();
            for row in &self.query(sql::POSITIONS).bind(ids).fetch_all(&mut *tx).await? {
                let saga = id(row)?;
                let Some(record) = refused.iter().find(|record| record.saga == saga) else { continue };
                let (epoch, write_no): (i64, i64) = (row.try_get("lease_epoch")?, row.try_get("write_no")?);
                let status: String = row.try_get("status")?;
                if record.epoch == epoch && record.write_no <= write_no {
                    verdicts.insert(saga, Verdict::Applied(rows::requests(row)?));
                } else if record.epoch == epoch && record.only_appends() && status == record.from.as_str() {
                    // The saga's row has to change, too.
                    again.push((*record).clone());
                }
            }
            if !again.is_empty() {
                verdicts.extend(write(&self.tables, &mut tx, &again, true).await?);
            }
        }
        tx.commit().await?;
        Ok(records
            .iter()
            .map(|record| verdicts.get(&record.saga).cloned().unwrap_or(Verdict::Fenced))
            .collect())
    }

    async fn insert_in_batch(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let rows = self.query(sql::INSERT_MANY).bind(batch::starts(sagas)?).fetch_all(&mut *tx).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let key: (&str, &str) = (row.try_get("business_type")?, row.try_get("business_id")?);
            found.insert(key, row);
        }
        let answer = |saga: &NewSaga| {
            let row = found.get(&(saga.saga_type.as_str(), saga.business_id.as_str()));
            inserted(saga, row.ok_or(sqlx::Error::RowNotFound)?)
        };
        let answers = sagas.iter().map(answer).collect::<Result<_, _>>()?;
        tx.commit().await?;
        Ok(answers)
    }

    async fn decide(&self, intervention: &Intervention) -> Result<Intervened, sqlx::Error> {
        let mut tx = self.begin().await?;
        let id = intervention.saga.to_string();
        let done = match &intervention.change {
            Some(change) => {
                self.query(sql::DECIDE)
                    .bind(&id)
                    .bind(intervention.row_version)
                    .bind(change.status.as_str())
                    .bind(change.resume_status.map(|status| status.as_str()))
                    .bind(&change.reason)
                    .bind(change.current_step)
                    .bind(change.unresolved)
                    .bind(intervention.unless_driven)
                    .bind(&intervention.request_cancel)
                    .bind(intervention.request_pause)
                    .fetch_optional(&mut *tx)
                    .await?
            }
            None => {
                self.query(sql::REQUEST)
                    .bind(&id)
                    .bind(intervention.row_version)
                    .bind(&intervention.request_cancel)
                    .bind(intervention.request_pause)
                    .fetch_optional(&mut *tx)
                    .await?
            }
        };
        let Some(row) = done else { return Ok(Intervened::Stale) };
        if let Some(change) = &intervention.change {
            let steps = Steps::of_decision(intervention.saga, row.try_get("lease_epoch")?, change);
            self.query(sql::STEPS_IN).bind(steps.json()?).fetch_all(&mut *tx).await?;
        }
        let after = intervention.change.as_ref().map_or(intervention.before, |change| change.status);
        self.query(sql::AUDIT)
            .bind(&id)
            .bind(&intervention.actor)
            .bind(&intervention.action)
            .bind(&intervention.reason)
            .bind(intervention.before.as_str())
            .bind(after.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Intervened::Applied)
    }

    async fn beat_in(&self, worker: &Worker) -> Result<Heartbeat, sqlx::Error> {
        let mut tx = self.begin().await?;
        let id = worker.id.to_string();
        let held: i64 = self.query(sql::HELD).bind(&id).fetch_one(&mut *tx).await?.try_get("held")?;
        self.query(sql::BEAT)
            .bind(&id)
            .bind(worker.pid)
            .bind(modifier(worker.lease))
            .execute(&mut *tx)
            .await?;
        self.query(sql::REBASE_WORKERS).bind(&id).execute(&mut *tx).await?;
        self.query(sql::FORGET_DEAD_WORKERS).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(if held > 0 { Heartbeat::Held } else { Heartbeat::Lapsed })
    }

    async fn retire_in(&self, worker: WorkerId) -> Result<u64, sqlx::Error> {
        let mut tx = self.begin().await?;
        let released = self.query(sql::RELEASE_ALL).bind(worker.to_string()).execute(&mut *tx).await?;
        self.query(sql::RETIRE).bind(worker.to_string()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(released.rows_affected())
    }

    async fn ids(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<String>, sqlx::Error> {
        query.fetch_all(&self.pool).await?.iter().map(|row| row.try_get("id")).collect()
    }

    async fn journals(&self, ids: String) -> Result<Vec<Journal>, sqlx::Error> {
        // No transaction: a caller may drop this future, and a BEGIN must not be dropped half way. The
        // steps may be newer than their saga; a decision on that is stale by the row version.
        let mut connection = self.pool.acquire().await?;
        self.load_all(&mut connection, &ids).await
    }

    async fn claimable(
        &self,
        connection: &mut SqliteConnection,
        request: &ClaimRequest,
    ) -> Result<Vec<String>, sqlx::Error> {
        let rows = self
            .query(sql::CLAIMABLE)
            .bind(request.worker.to_string())
            .bind(json_list(&request.own))
            .bind(json_list(definitions(&request.runnable)))
            .bind(request.limit)
            .bind(request.suspect_at)
            .bind(request.suspects)
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| row.try_get("id")).collect()
    }

    async fn load_all(
        &self,
        connection: &mut SqliteConnection,
        ids: &str,
    ) -> Result<Vec<Journal>, sqlx::Error> {
        let instances = self.query(sql::INSTANCES).bind(ids).fetch_all(&mut *connection).await?;
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let steps = self.query(sql::STEPS).bind(ids).fetch_all(connection).await?;
        Ok(rows::journals(&instances, &steps))
    }
}

/// The verdicts of those that were written. With `rewrite`, also a mere step forward writes its saga's row.
async fn write(
    tables: &Tables,
    connection: &mut SqliteConnection,
    records: &[Record],
    rewrite: bool,
) -> Result<HashMap<SagaId, Verdict>, sqlx::Error> {
    let (heads, steps) = (Heads::of(records, rewrite), Steps::of(records, rewrite));
    let mut passed = Vec::new();
    if !heads.is_empty() {
        passed = sqlx::query(tables.sql(sql::APPLY)).bind(heads.json()?).fetch_all(&mut *connection).await?;
    }
    if !steps.is_empty() {
        passed
            .extend(sqlx::query(tables.sql(sql::STEPS_IN)).bind(steps.json()?).fetch_all(connection).await?);
    }
    passed.iter().map(|row| Ok((id(row)?, Verdict::Applied(rows::requests(row)?)))).collect()
}

fn id(row: &SqliteRow) -> Result<SagaId, sqlx::Error> {
    let text: &str = row.try_get("id")?;
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn inserted(saga: &NewSaga, row: &SqliteRow) -> Result<Inserted, sqlx::Error> {
    let id = id(row)?;
    if id == saga.id {
        return Ok(Inserted::Created);
    }
    Ok(Inserted::Exists { id, input_hash: row.try_get("input_hash")? })
}

/// A record that the database refuses for itself, as opposed to a database that cannot be used.
fn is_about_the_record(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| rows::is_about_a_row(&code))
}

#[async_trait]
impl SagaStore for SqliteStore {
    fn backend(&self) -> &'static str {
        <Sqlite as sqlx::Database>::NAME
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        Some(self)
    }

    fn start_statement(&self) -> Option<StartStatement> {
        Some(StartStatement { sql: self.tables.text(sql::INSERT), named: true })
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.beat_in(worker).await.map_err(|error| store_error("renew a worker's lease", error))
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.retire_in(worker).await.map_err(|error| store_error("retire a worker", error))
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        for definition in definitions {
            self.query(sql::DEFINE)
                .bind(&definition.fingerprint)
                .bind(&definition.saga_type)
                .bind(definition.version)
                .bind(&definition.steps)
                .execute(&self.writer)
                .await
                .map_err(|error| store_error("record the saga definitions", error))?;
        }
        Ok(())
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.insert_in_batch(sagas).await.map_err(|error| store_error("insert sagas", error))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.claim_in(request).await.map_err(|error| store_error("claim sagas", error))
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        let ids = self.ids(self.query(sql::OWNED).bind(worker.to_string())).await;
        let ids = ids.map_err(|error| store_error("list a worker's sagas", error))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        let rows = self.query(sql::ASKED).bind(worker.to_string()).fetch_all(&self.pool).await;
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
        self.journals(json_list(ids)).await.map_err(|error| store_error("load sagas", error))
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        let failed = |error| store_error("find a saga", error);
        let ids = self.ids(self.query(sql::FIND).bind(business_id).bind(saga_type)).await.map_err(failed)?;
        Ok(self.journals(json_list(ids)).await.map_err(failed)?.pop())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        let failed = |error| store_error("list sagas", error);
        let query = self
            .query(sql::LIST)
            .bind(filter.before.map(|id| id.to_string()))
            .bind(filter.status.map(|status| status.as_str()))
            .bind(&filter.saga_type)
            .bind(if filter.limit == 0 { 100 } else { filter.limit });
        let ids = self.ids(query).await.map_err(failed)?;
        let mut journals = self.journals(json_list(ids)).await.map_err(failed)?;
        journals.sort_by_key(|journal| std::cmp::Reverse(journal.instance.id));
        Ok(journals.into_iter().map(|journal| journal.instance).collect())
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        let rows = self.query(sql::RESTED).bind(json_list(ids)).fetch_all(&self.pool).await;
        Ok(rows::settled(&rows.map_err(|error| store_error("ask which sagas came to rest", error))?))
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        let rows = self.query(sql::CENSUS).bind(json_list(definitions(runnable))).fetch_all(&self.pool).await;
        let counted = rows.and_then(|rows| rows.iter().map(rows::open_counts).collect());
        counted.map_err(|error| store_error("count the open sagas", error))
    }
}

impl StartIn for Sqlite {
    fn insert_in<'c, E>(
        executor: E,
        statement: Option<StartStatement>,
        saga: NewSaga,
    ) -> BoxFuture<'c, Result<Inserted, StoreError>>
    where
        E: sqlx::Executor<'c, Database = Self> + 'c,
    {
        let usual = || StartStatement { sql: sql::INSERT.into(), named: true };
        let StartStatement { sql, named } = statement.unwrap_or_else(usual);
        Box::pin(async move {
            let failed = |error| store_error("insert a saga", error);
            // To the end: the executor may be in no transaction. SQLite then gives the row before it commits, and the driver
            // drops the error of the commit if it is asked for the first row only.
            let rows = sqlx::query(AssertSqlSafe(sql))
                .persistent(named)
                .bind(saga.id.to_string())
                .bind(&saga.business_id)
                .bind(&saga.saga_type)
                .bind(&saga.definition)
                .bind(saga.input.as_json())
                .bind(&saga.input_hash)
                .bind(saga.owner.to_string())
                .bind(&saga.trace)
                .fetch_all(executor)
                .await
                .map_err(failed)?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound).map_err(failed)?;
            inserted(&saga, row).map_err(failed)
        })
    }
}
