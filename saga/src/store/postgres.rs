//! The store in PostgreSQL: many workers on many machines, one statement per batch.
//!
//! Invariant: every statement is fenced by itself, so READ COMMITTED is enough and nothing is
//! retried for serialization. The engine writes through sessions of its own: they insist on
//! `synchronous_commit`, and keep the plans that use the keys (a plan made while the tables were
//! empty would scan them for ever).

mod columns;
mod sql;

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow, Postgres};

use super::rows::{self, store_error};
use super::{SagaStore, StartIn};
use crate::error::StoreError;
use crate::record::{
    Beat, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, Record, SagaId, Verdict, Worker, WorkerId,
};
use columns::{Instances, Steps, millis};

/// Keeps sagas in PostgreSQL. Opens up to four connections of its own beside the given pool.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    own: PgPool,
}

/// The schema, one step per version. Never change a step that was released.
const MIGRATIONS: &[&str] = &[include_str!("postgres/schema.sql")];

/// Any two processes that migrate agree on this number.
const MIGRATION_LOCK: i64 = 0x5A6A_0001;

const SESSION: [(&str, &str); 5] = [
    ("synchronous_commit", "on"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("application_name", "probity-saga"),
];

impl PostgresStore {
    /// Connects to the database of `pool`, checks that it keeps what it acknowledges, and migrates
    /// the tables.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the server runs with `fsync=off`, cannot be reached, or cannot be migrated.
    pub async fn new(pool: PgPool) -> Result<Self, StoreError> {
        let options = pool.connect_options().as_ref().clone().options(SESSION);
        let own = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(|error| store_error("connect to PostgreSQL", error))?;
        let operation = "check the durability settings of PostgreSQL";
        let fsync: String = sqlx::query_scalar("SHOW fsync")
            .fetch_one(&own)
            .await
            .map_err(|error| store_error(operation, error))?;
        if fsync == "off" {
            return Err(StoreError::not_applied(
                operation,
                "the server runs with fsync=off, so a power cut could lose an acknowledged step: turn it on",
            ));
        }
        migrate(&own).await.map_err(|error| store_error("migrate the saga tables", error))?;
        Ok(Self { own })
    }

    async fn claim_all(&self, request: &ClaimRequest) -> Result<Vec<Journal>, sqlx::Error> {
        let runnable: Vec<String> =
            request.runnable.iter().map(|(name, print)| format!("{name} {print}")).collect();
        let taken = sqlx::query(sql::CLAIM)
            .bind(request.worker.to_string())
            .bind(texts(&request.own))
            .bind(runnable)
            .bind(i64::from(request.limit))
            .bind(i64::from(request.stalled_max))
            .fetch_all(&self.own)
            .await?;
        let mut ids = Vec::with_capacity(taken.len());
        for row in taken {
            let (id, status): (String, String) = (row.try_get("id")?, row.try_get("status")?);
            if status == "paused" {
                tracing::error!(saga.id = id, "a saga made no progress in many claims and is paused");
                metrics::counter!("probity_saga_poison_total").increment(1);
            } else {
                ids.push(id);
            }
        }
        self.journals(ids).await
    }

    async fn journals(&self, ids: Vec<String>) -> Result<Vec<Journal>, sqlx::Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let instances = sqlx::query(sql::INSTANCES).bind(&ids).fetch_all(&self.own).await?;
        let steps = sqlx::query(sql::STEPS).bind(&ids).fetch_all(&self.own).await?;
        Ok(rows::journals(&instances, &steps))
    }

    async fn apply_batch(&self, records: &[Record]) -> Result<Vec<Verdict>, sqlx::Error> {
        let query = Instances::of(records).bind(sqlx::query(sql::APPLY));
        let steps =
            records.iter().flat_map(|record| record.change.steps.iter().map(|step| (record.saga, step)));
        let passed = Steps::of(steps).bind_all(query).fetch_all(&self.own).await?;
        let mut verdicts = HashMap::with_capacity(records.len());
        for row in &passed {
            verdicts.insert(id(row)?, Verdict::Applied(rows::requests(row)?));
        }
        let refused: Vec<&Record> =
            records.iter().filter(|record| !verdicts.contains_key(&record.saga)).collect();
        if !refused.is_empty() {
            let ids = texts(refused.iter().map(|record| record.saga));
            let positions = sqlx::query(sql::POSITIONS).bind(ids).fetch_all(&self.own).await?;
            for row in &positions {
                let (saga, epoch): (SagaId, i64) = (id(row)?, row.try_get("lease_epoch")?);
                let write_no: i64 = row.try_get("write_no")?;
                let repeated = |record: &&Record| {
                    record.saga == saga && record.epoch == epoch && record.write_no <= write_no
                };
                if refused.iter().any(repeated) {
                    verdicts.insert(saga, Verdict::Applied(rows::requests(row)?));
                }
            }
        }
        Ok(records
            .iter()
            .map(|record| verdicts.get(&record.saga).cloned().unwrap_or(Verdict::Fenced))
            .collect())
    }

    async fn insert_all(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, sqlx::Error> {
        let column = |of: fn(&NewSaga) -> String| sagas.iter().map(of).collect::<Vec<String>>();
        let rows = sqlx::query(sql::INSERT_MANY)
            .bind(column(|saga| saga.id.to_string()))
            .bind(column(|saga| saga.business_id.clone()))
            .bind(column(|saga| saga.saga_type.clone()))
            .bind(column(|saga| saga.definition.clone()))
            .bind(column(|saga| saga.input.as_json().into()))
            .bind(column(|saga| saga.input_hash.clone()))
            .bind(column(|saga| saga.owner.to_string()))
            .fetch_all(&self.own)
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let key: (String, String) = (row.try_get("business_type")?, row.try_get("business_id")?);
            found.insert(key, row);
        }
        let answer = |saga: &NewSaga| {
            let row = found.get(&(saga.saga_type.clone(), saga.business_id.clone()));
            row.ok_or(sqlx::Error::RowNotFound).and_then(|row| inserted(saga, row))
        };
        sagas.iter().map(answer).collect()
    }

    async fn decide(&self, intervention: &Intervention) -> Result<Intervened, sqlx::Error> {
        let change = intervention.change.as_ref();
        let query = sqlx::query(sql::DECIDE)
            .bind(intervention.saga.to_string())
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
        let steps =
            change.iter().flat_map(|change| change.steps.iter().map(|step| (intervention.saga, step)));
        let done = Steps::of(steps).bind_decided(query).fetch_optional(&self.own).await?;
        Ok(if done.is_some() { Intervened::Applied } else { Intervened::Stale })
    }

    async fn ids(
        &self,
        query: sqlx::query::Query<'_, Postgres, sqlx::postgres::PgArguments>,
    ) -> Result<Vec<String>, sqlx::Error> {
        query.fetch_all(&self.own).await?.iter().map(|row| row.try_get("id")).collect()
    }
}

async fn migrate(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS saga_schema (version bigint PRIMARY KEY)")
        .execute(&mut *tx)
        .await?;
    let version: i64 =
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM saga_schema").fetch_one(&mut *tx).await?;
    for (next, migration) in (1_i64..).zip(MIGRATIONS) {
        if next > version {
            sqlx::raw_sql(*migration).execute(&mut *tx).await?;
            sqlx::query("INSERT INTO saga_schema (version) VALUES ($1)").bind(next).execute(&mut *tx).await?;
        }
    }
    tx.commit().await
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn id(row: &PgRow) -> Result<SagaId, sqlx::Error> {
    let text: String = row.try_get("id")?;
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn inserted(saga: &NewSaga, row: &PgRow) -> Result<Inserted, sqlx::Error> {
    let id = id(row)?;
    if id == saga.id {
        return Ok(Inserted::Created);
    }
    Ok(Inserted::Exists { id, input_hash: row.try_get("input_hash")? })
}

/// Classes 22 (unstorable data) and 23 (a constraint): the record's own fault.
fn is_about_the_record(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
}

#[async_trait]
impl SagaStore for PostgresStore {
    fn backend(&self) -> &'static str {
        <Postgres as sqlx::Database>::NAME
    }

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        let held = sqlx::query_scalar::<_, bool>(sql::BEAT)
            .bind(worker.id.to_string())
            .bind(i64::from(worker.pid))
            .bind(millis(worker.lease))
            .fetch_one(&self.own)
            .await
            .map_err(|error| store_error("renew a worker's lease", error))?;
        Ok(if held { Beat::Held } else { Beat::Lapsed })
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        let released = sqlx::query(sql::RETIRE).bind(worker.to_string()).execute(&self.own).await;
        Ok(released.map_err(|error| store_error("retire a worker", error))?.rows_affected())
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        for definition in definitions {
            sqlx::query(sql::DEFINE)
                .bind(&definition.fingerprint)
                .bind(&definition.saga_type)
                .bind(i64::from(definition.version))
                .bind(&definition.steps)
                .execute(&self.own)
                .await
                .map_err(|error| store_error("record the saga definitions", error))?;
        }
        Ok(())
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.insert_all(sagas).await.map_err(|error| store_error("insert sagas", error))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.claim_all(request).await.map_err(|error| store_error("claim sagas", error))
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
        self.journals(texts(ids)).await.map_err(|error| store_error("load sagas", error))
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        let failed = |error| store_error("find a saga", error);
        let ids = self.ids(sqlx::query(sql::FIND).bind(business_id).bind(saga_type)).await.map_err(failed)?;
        Ok(self.journals(ids).await.map_err(failed)?.pop())
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        let failed = |error| store_error("list sagas", error);
        let query = sqlx::query(sql::LIST)
            .bind(filter.before.map(|id| id.to_string()))
            .bind(filter.status.map(|status| status.as_str()))
            .bind(&filter.saga_type)
            .bind(if filter.limit == 0 { 100 } else { i64::from(filter.limit) });
        let ids = self.ids(query).await.map_err(failed)?;
        let mut journals = self.journals(ids).await.map_err(failed)?;
        journals.sort_by_key(|journal| std::cmp::Reverse(journal.instance.id));
        Ok(journals.into_iter().map(|journal| journal.instance).collect())
    }
}

impl StartIn for Postgres {
    fn insert_in<'c, E>(executor: E, saga: NewSaga) -> BoxFuture<'c, Result<Inserted, StoreError>>
    where
        E: sqlx::Executor<'c, Database = Self> + 'c,
    {
        Box::pin(async move {
            let row = sqlx::query(sql::INSERT_ONE)
                .bind(saga.id.to_string())
                .bind(&saga.business_id)
                .bind(&saga.saga_type)
                .bind(&saga.definition)
                .bind(saga.input.as_json())
                .bind(&saga.input_hash)
                .bind(saga.owner.to_string())
                .fetch_one(executor)
                .await;
            row.and_then(|row| inserted(&saga, &row)).map_err(|error| store_error("insert a saga", error))
        })
    }
}
