//! Transactions for local steps: sessions of their own, because the effect of a step wants the planner as it is.
//!
//! Invariant: the fence is the last statement before COMMIT, so the saga's row is held only for the commit itself, and a
//! claim in between wins. A marker that ends with the transaction proves that it is still the one that was begun.

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPool, Postgres};
use sqlx::{AssertSqlSafe, Row as _, Transaction};
use tokio::time::timeout;

use super::{ANSWER, PostgresStore, columns, is_about_the_record, session, sql};
use crate::error::{Effect, StoreError};
use crate::record::Record;
use crate::store::local::{LocalStore, LocalTransaction, LocalVerdict};
use crate::store::rows::{self, of_commit, store_error};
use crate::store::tables::Tables;

/// The time that a transaction may take beyond that of its step: for our own two statements.
const MARGIN: Duration = Duration::from_secs(5);

/// Makes the pool of local steps, when the first one runs. The hooks of the application's pool run for its sessions as
/// well.
pub(super) fn pool(given: &PgPool, options: PgConnectOptions, most: u32) -> PgPool {
    given
        .options()
        .clone()
        .min_connections(0)
        .max_connections(most)
        .acquire_timeout(session::CONNECT)
        .connect_lazy_with(options.application_name("probity-saga-local"))
}

struct Open {
    tx: Transaction<'static, Postgres>,
    tables: Tables,
    named: bool,
}

#[async_trait]
impl LocalStore for PostgresStore {
    async fn begin(&self, limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError> {
        let operation = "begin a local step";
        let answered = timeout(ANSWER, self.local.begin_with(AssertSqlSafe(begin(limit)))).await;
        let silent = |_elapsed| StoreError::not_applied(operation, "the server does not answer");
        let tx = answered.map_err(silent)?.map_err(|error| StoreError::not_applied(operation, error))?;
        Ok(Box::new(Open { tx, tables: self.tables.clone(), named: self.named() }))
    }
}

/// A plan that was kept since the tables were empty would scan them; a plan made for its one saga does not.
///
/// The server ends a session that is idle in the transaction, and a statement that outlives the step, so that a frozen
/// worker holds its locks for no longer than that.
fn begin(limit: Duration) -> String {
    let step = millis(limit);
    let idle = millis(limit.saturating_add(MARGIN));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = on; \
         SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = {step}; \
         SET LOCAL idle_in_transaction_session_timeout = {idle}; SET LOCAL probity_saga.local_step = 'open'"
    )
}

/// At least one, because zero means for ever, and at most what the server takes.
fn millis(duration: Duration) -> u128 {
    duration.as_millis().clamp(1, i32::MAX as u128)
}

#[async_trait]
impl LocalTransaction for Open {
    fn connection(&mut self) -> &mut (dyn Any + Send) {
        &mut *self.tx
    }

    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError> {
        let Self { mut tx, tables, named } = *self;
        let silent = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer");
        // Without a COMMIT no write stays, even if this statement got no answer.
        let written = timeout(ANSWER, write(&mut tx, &tables, named, record)).await;
        match written.unwrap_or_else(|_elapsed| Err(silent().into())) {
            Ok(LocalVerdict::Applied(requests)) => {
                let committed = timeout(ANSWER, tx.commit()).await;
                match committed.unwrap_or_else(|_elapsed| Err(silent().into())) {
                    Ok(()) => Ok(LocalVerdict::Applied(requests)),
                    Err(error) => rolled_back("commit a local step", of_commit(error)),
                }
            }
            Ok(neither) => Ok(neither),
            Err(error) if is_about_the_record(&error) => Ok(LocalVerdict::Refused(error.to_string())),
            Err(error) => match rolled_back("record a local step", error) {
                Err(error) if error.effect() == Effect::Unknown => {
                    Err(StoreError::not_applied("record a local step", error))
                }
                known => known,
            },
        }
    }
}

/// An answer of the server about the transaction, as opposed to a server that cannot be used or a row that is held.
fn rolled_back(operation: &'static str, error: sqlx::Error) -> Result<LocalVerdict, StoreError> {
    let answered = matches!(error, sqlx::Error::Database(_));
    let text = error.to_string();
    let error = store_error(operation, error);
    if answered && error.effect() == Effect::NotApplied && !error.is_contended() {
        return Ok(LocalVerdict::RolledBack(text));
    }
    Err(error)
}

async fn write(
    tx: &mut Transaction<'static, Postgres>,
    tables: &Tables,
    named: bool,
    record: &Record,
) -> Result<LocalVerdict, sqlx::Error> {
    let statement = sqlx::query(tables.sql(sql::LOCAL)).persistent(named);
    let write = columns::bind_many(statement, std::slice::from_ref(&record));
    if let Some(row) = write.fetch_optional(&mut **tx).await? {
        return Ok(LocalVerdict::Applied(rows::requests(&row)?));
    }
    let marker = sqlx::query(
        "SELECT current_setting('probity_saga.local_step', true) IS NOT DISTINCT FROM 'open' AS open",
    );
    if marker.persistent(named).fetch_one(&mut **tx).await?.try_get("open")? {
        return Ok(LocalVerdict::Fenced);
    }
    Ok(LocalVerdict::Refused(crate::store::local::ENDED_BY_THE_STEP.into()))
}
