//! The store in SQLite: one file, no server, and the caller's own transactions beside it.
//!
//! Invariant: what is acknowledged survives a power cut, so the database runs WAL with
//! `synchronous=FULL`, or the store refuses it. A batch of results is one transaction; a record
//! that SQLite refuses costs only itself. SQLite has one writer, so one connection of the store writes
//! everything: tasks queue for it in the order they came, instead of polling for the lock of the file.

mod batch;
mod local;
mod schema;
mod sql;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Connection as _, Row as _, Transaction};

use super::rows::{self, definitions, json_list, store_error};
use super::{LocalStore, SagaStore, StartIn};
use crate::error::StoreError;
use crate::record::{
    Beat, Census, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal,
    ListFilter, NewSaga, Record, Rested, SagaId, Verdict, Worker, WorkerId,
};
use batch::{Heads, Steps, modifier};

/// Keeps sagas in SQLite. The pool's connections must use WAL and `synchronous=FULL`, by its connect options: reads go
/// through the given pool, and one more connection, opened by the same options, writes.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    writer: SqlitePool,
}

/// How long a write waits for the writes before it; each of them waits at most for the pool's busy timeout.
const QUEUE: Duration = Duration::from_secs(60);

impl SqliteStore {
    /// Checks the durability settings of the pool and migrates the tables.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the database is not in WAL mode with `synchronous` FULL or EXTRA, by the options of the pool as well as on its
    /// connections, or cannot be migrated.
    pub async fn new(pool: SqlitePool) -> Result<Self, StoreError> {
        check_durability(&pool).await?;
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .acquire_timeout(QUEUE)
            // After some errors SQLite ends a transaction by itself, and sqlx believes for ever that it is still in it.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(pool.connect_options().as_ref().clone())
            .await
            .map_err(|error| store_error("open a connection that writes", error))?;
        // It is opened by the options of the pool, and knows nothing of what the pool does to its own after that.
        check_durability(&writer).await?;
        schema::migrate(&writer).await?;
        Ok(Self { pool, writer })
    }

    /// Forgets sagas that ended as `completed` or `compensated` longer than `after` ago: at most `limit`, oldest
    /// first, with their steps. Answers how many; call it again until that is less than `limit`. What an operator
    /// aborted stays, because its open effects are on record there, and audit rows stay.
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
        let old = sqlx::query(sql::OLD)
            .bind(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
            .bind(modifier(after).replacen('+', "-", 1))
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?;
        let ids = json_list(old.iter().map(|row| row.try_get("id")).collect::<Result<Vec<String>, _>>()?);
        sqlx::query(sql::FORGET_STEPS).bind(&ids).execute(&mut *tx).await?;
        sqlx::query(sql::FORGET).bind(&ids).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(old.len() as u64)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    async fn claim_in(&self, request: &ClaimRequest) -> Result<Vec<Journal>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        if claimable(&mut connection, request).await?.is_empty() {
            return Ok(Vec::new());
        }
        drop(connection);
        let mut tx = self.begin().await?;
        let found = claimable(&mut tx, request).await?;
        let taken = sqlx::query(sql::CLAIM)
            .bind(json_list(found))
            .bind(request.worker.to_string())
            .bind(request.stalled_max)
            .fetch_all(&mut *tx)
            .await?;
        let (mut ids, mut parked): (Vec<String>, Vec<(String, String)>) = Default::default();
        for row in taken {
            let (id, status): (String, String) = (row.try_get("id")?, row.try_get("status")?);
            if status == "paused" {
                parked.push((id, row.try_get("business_type")?));
            } else {
                ids.push(id);
            }
        }
        let journals = load_all(&mut tx, &json_list(ids)).await?;
        tx.commit().await?;
        for (id, saga_type) in parked {
            super::tell_of_poison(id, &saga_type);
        }
        Ok(journals)
    }

    async fn apply_batch(&self, records: &[Record]) -> Result<Vec<Verdict>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let mut verdicts = write(&mut tx, records, false).await?;
        let refused: Vec<&Record> =
            records.iter().filter(|record| !verdicts.contains_key(&record.saga)).collect();
        if !refused.is_empty() {
            let ids = json_list(refused.iter().map(|record| record.saga));
            let mut again = Vec::new();
            for row in &sqlx::query(sql::POSITIONS).bind(ids).fetch_all(&mut *tx).await? {
                let saga = id(row)?;
                let Some(record) = refused.iter().find(|record| record.saga == saga) else { continue };
                let (epoch, write_no): (i64, i64) = (row.try_get("lease_epoch")?, row.try_get("write_no")?);
                let status: String = row.try_get("status")?;
                if record.epoch == epoch && record.write_no <= write_no {
                    verdicts.insert(saga, Verdict::Applied(rows::requests(row)?));
                } else if record.epoch == epoch && record.only_appends() && status == record.from.as_str() {
                    // Its saga's row has to change after all.
                    again.push((*record).clone());
                }
            }
            if !again.is_empty() {
                verdicts.extend(write(&mut tx, &again, true).await?);
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
        let rows = sqlx::query(sql::INSERT_MANY).bind(batch::starts(sagas)?).fetch_all(&mut *tx).await?;
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
                sqlx::query(sql::DECIDE)
                    .bind(&id)
                    .bind(intervention.row_version)
                    .bind(change.status.as_str())
                    .bind(change.resume_status.map(|status| status.as_str()))
                    .bind(&change.reason)
                    .bind(change.current_step)
                    .bind(change.unresolved)
                    .bind(intervention.unless_driven)
                    .fetch_optional(&mut *tx)
                    .await?
            }
            None => {
                sqlx::query(sql::REQUEST)
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
            sqlx::query(sql::STEPS_IN).bind(steps.json()?).fetch_all(&mut *tx).await?;
        }
        let after = intervention.change.as_ref().map_or(intervention.before, |change| change.status);
        sqlx::query(sql::AUDIT)
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

    async fn beat_in(&self, worker: &Worker) -> Result<Beat, sqlx::Error> {
        let mut tx = self.begin().await?;
        let id = worker.id.to_string();
        let held: i64 = sqlx::query(sql::HELD).bind(&id).fetch_one(&mut *tx).await?.try_get("held")?;
        sqlx::query(sql::BEAT)
            .bind(&id)
            .bind(worker.pid)
            .bind(modifier(worker.lease))
            .execute(&mut *tx)
            .await?;
        sqlx::query(sql::FORGET_DEAD_WORKERS).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(if held > 0 { Beat::Held } else { Beat::Lapsed })
    }

    async fn retire_in(&self, worker: WorkerId) -> Result<u64, sqlx::Error> {
        let mut tx = self.begin().await?;
        let released = sqlx::query(sql::RELEASE_ALL).bind(worker.to_string()).execute(&mut *tx).await?;
        sqlx::query(sql::RETIRE).bind(worker.to_string()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(released.rows_affected())
    }

    async fn ids(
        &self,
        query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<String>, sqlx::Error> {
        query.fetch_all(&self.pool).await?.iter().map(|row| row.try_get("id")).collect()
    }

    async fn journals(&self, ids: String) -> Result<Vec<Journal>, sqlx::Error> {
        // No transaction: a caller may drop this future, and a BEGIN must not be dropped half way. The
        // steps may be newer than their saga; whoever decides on that is stale by the row version.
        let mut connection = self.pool.acquire().await?;
        load_all(&mut connection, &ids).await
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

async fn claimable(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(sql::CLAIMABLE)
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

async fn load_all(connection: &mut SqliteConnection, ids: &str) -> Result<Vec<Journal>, sqlx::Error> {
    let instances = sqlx::query(sql::INSTANCES).bind(ids).fetch_all(&mut *connection).await?;
    if instances.is_empty() {
        return Ok(Vec::new());
    }
    let steps = sqlx::query(sql::STEPS).bind(ids).fetch_all(connection).await?;
    Ok(rows::journals(&instances, &steps))
}

/// The verdicts of those that were written. With `rewrite`, also a mere step forward writes its saga's row.
async fn write(
    connection: &mut SqliteConnection,
    records: &[Record],
    rewrite: bool,
) -> Result<HashMap<SagaId, Verdict>, sqlx::Error> {
    let (heads, steps) = (Heads::of(records, rewrite), Steps::of(records, rewrite));
    let mut passed = Vec::new();
    if !heads.is_empty() {
        passed = sqlx::query(sql::APPLY).bind(heads.json()?).fetch_all(&mut *connection).await?;
    }
    if !steps.is_empty() {
        passed.extend(sqlx::query(sql::STEPS_IN).bind(steps.json()?).fetch_all(connection).await?);
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

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        self.beat_in(worker).await.map_err(|error| store_error("renew a worker's lease", error))
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.retire_in(worker).await.map_err(|error| store_error("retire a worker", error))
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        for definition in definitions {
            sqlx::query(sql::DEFINE)
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
        let ids = self.ids(sqlx::query(sql::OWNED).bind(worker.to_string())).await;
        let ids = ids.map_err(|error| store_error("list a worker's sagas", error))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        match self.apply_batch(records).await {
            Ok(verdicts) => return Ok(verdicts),
            Err(error) if is_about_the_record(&error) => {}
            Err(error) => return Err(store_error("write saga results", error)),
        }
        // One of them is bad: each for itself. Those written before are answered as repeated.
        let mut verdicts = Vec::with_capacity(records.len());
        for record in records {
            verdicts.push(match self.apply_batch(std::slice::from_ref(record)).await {
                Ok(mut verdicts) => verdicts.pop().unwrap_or(Verdict::Fenced),
                Err(error) if is_about_the_record(&error) => Verdict::Refused(error.to_string()),
                Err(error) => return Err(store_error("write a saga result", error)),
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
        let ids = self.ids(sqlx::query(sql::FIND).bind(business_id).bind(saga_type)).await.map_err(failed)?;
        Ok(self.journals(json_list(ids)).await.map_err(failed)?.pop())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        let failed = |error| store_error("list sagas", error);
        let query = sqlx::query(sql::LIST)
            .bind(filter.before.map(|id| id.to_string()))
            .bind(filter.status.map(|status| status.as_str()))
            .bind(&filter.saga_type)
            .bind(if filter.limit == 0 { 100 } else { filter.limit });
        let ids = self.ids(query).await.map_err(failed)?;
        let mut journals = self.journals(json_list(ids)).await.map_err(failed)?;
        journals.sort_by_key(|journal| std::cmp::Reverse(journal.instance.id));
        Ok(journals.into_iter().map(|journal| journal.instance).collect())
    }

    async fn rested(&self, ids: &[SagaId]) -> Result<Vec<Rested>, StoreError> {
        let rows = sqlx::query(sql::RESTED).bind(json_list(ids)).fetch_all(&self.pool).await;
        Ok(rows::rested(&rows.map_err(|error| store_error("ask which sagas came to rest", error))?))
    }

    async fn census(&self, runnable: &[(String, String)]) -> Result<Vec<Census>, StoreError> {
        let rows =
            sqlx::query(sql::CENSUS).bind(json_list(definitions(runnable))).fetch_all(&self.pool).await;
        let counted = rows.and_then(|rows| rows.iter().map(rows::census).collect());
        counted.map_err(|error| store_error("count the open sagas", error))
    }
}

impl StartIn for Sqlite {
    fn insert_in<'c, E>(executor: E, saga: NewSaga) -> BoxFuture<'c, Result<Inserted, StoreError>>
    where
        E: sqlx::Executor<'c, Database = Self> + 'c,
    {
        Box::pin(async move {
            let failed = |error| store_error("insert a saga", error);
            let row = sqlx::query(sql::INSERT)
                .bind(saga.id.to_string())
                .bind(&saga.business_id)
                .bind(&saga.saga_type)
                .bind(&saga.definition)
                .bind(saga.input.as_json())
                .bind(&saga.input_hash)
                .bind(saga.owner.to_string())
                .fetch_one(executor)
                .await
                .map_err(failed)?;
            inserted(&saga, &row).map_err(failed)
        })
    }
}
