//! Rows of the SQL stores, as both databases return them: the statements cast ids and times to text
//! and numbers to 64 bits, so that one decoder serves both.

use std::str::FromStr;
use std::time::Duration;

use sqlx::Row as _;

use crate::error::{Effect, StoreError};
use crate::machine::{Status, StepStatus};
use crate::record::{Document, Instance, Journal, Requests, StepRow};

/// Reads the few types that the statements return.
pub(super) trait Columns {
    fn text(&self, column: &'static str) -> Result<String, sqlx::Error>;
    fn maybe_text(&self, column: &'static str) -> Result<Option<String>, sqlx::Error>;
    fn number(&self, column: &'static str) -> Result<i64, sqlx::Error>;
    fn maybe_number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error>;
}

macro_rules! columns {
    ($row:ty) => {
        impl Columns for $row {
            fn text(&self, column: &'static str) -> Result<String, sqlx::Error> {
                self.try_get(column)
            }
            fn maybe_text(&self, column: &'static str) -> Result<Option<String>, sqlx::Error> {
                self.try_get(column)
            }
            fn number(&self, column: &'static str) -> Result<i64, sqlx::Error> {
                self.try_get(column)
            }
            fn maybe_number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
                self.try_get(column)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
columns!(sqlx::sqlite::SqliteRow);
#[cfg(feature = "postgres")]
columns!(sqlx::postgres::PgRow);

fn parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Result<T, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.text(column)?.parse().map_err(|error: T::Err| decode_error(column, error))
}

fn maybe_parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.maybe_text(column)?;
    text.map(|text| text.parse()).transpose().map_err(|error: T::Err| decode_error(column, error))
}

fn small(row: &impl Columns, column: &'static str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.number(column)?).map_err(|error| decode_error(column, error))
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

fn decode_error(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: Box::new(source) }
}

pub(super) fn instance(row: &impl Columns) -> Result<Instance, sqlx::Error> {
    Ok(Instance {
        id: parsed(row, "id")?,
        saga_type: row.text("business_type")?,
        business_id: row.text("business_id")?,
        definition: row.text("definition")?,
        status: parsed::<Status>(row, "status")?,
        resume_status: maybe_parsed(row, "resume_status")?,
        reason: row.maybe_text("error_message")?,
        current_step: small(row, "current_step")?,
        input: Document::from_stored(row.text("input")?),
        input_hash: row.text("input_hash")?,
        owner: maybe_parsed(row, "owner_id")?,
        epoch: row.number("lease_epoch")?,
        write_no: row.number("write_no")?,
        unresolved: small(row, "unresolved")?,
        row_version: row.number("row_version")?,
        stalled_claims: small(row, "stalled_claims")?,
        cancel_requested: row.maybe_text("cancel_reason")?,
        pause_requested: row.number("pause_requested")? != 0,
        age: millis(row.number("age_ms")?),
    })
}

pub(super) fn step(row: &impl Columns) -> Result<StepRow, sqlx::Error> {
    Ok(StepRow {
        order: small(row, "step_order")?,
        name: row.text("step_name")?,
        status: parsed::<StepStatus>(row, "status")?,
        output: row.maybe_text("result")?.map(Document::from_stored),
        evidence: row.maybe_text("evidence")?,
        error: row.maybe_text("error_message")?,
        retries: small(row, "retry_count")?,
        retries_max: small(row, "max_retry_count")?,
        undo_retries: small(row, "undo_retry_count")?,
        completion: small(row, "completion_no")?,
        key: row.text("idempotency_key")?,
        retry_in: row.maybe_number("retry_in_ms")?.map(millis),
        resolved_by: row.maybe_text("resolved_by")?,
    })
}

pub(super) fn requests(row: &impl Columns) -> Result<Requests, sqlx::Error> {
    Ok(Requests { cancel: row.maybe_text("cancel_reason")?, pause: row.number("pause_requested")? != 0 })
}

/// Puts steps to their sagas. A row that cannot be read costs its own saga, not the others: it is
/// left out, its claim made no progress, and the poison limit shows it.
pub(super) fn journals<R: Columns>(instances: &[R], steps: &[R]) -> Vec<Journal> {
    let mut journals: Vec<Journal> = Vec::with_capacity(instances.len());
    let mut at = std::collections::HashMap::with_capacity(instances.len());
    for row in instances {
        match instance(row) {
            Ok(instance) => {
                at.insert(instance.id.to_string(), journals.len());
                journals.push(Journal { instance, steps: Vec::new() });
            }
            Err(error) => tracing::error!(%error, "a saga row cannot be read; it is left alone"),
        }
    }
    let mut unreadable = std::collections::BTreeSet::new();
    for row in steps {
        let Ok(saga) = row.text("saga_id") else { continue };
        let Some(at) = at.get(&saga).copied() else { continue };
        match step(row) {
            Ok(step) => journals[at].steps.push(step),
            Err(error) => {
                tracing::error!(saga.id = saga, %error, "a saga step row cannot be read; its saga is left alone");
                unreadable.insert(at);
            }
        }
    }
    for at in unreadable.into_iter().rev() {
        journals.remove(at);
    }
    journals
}

/// What is known of a statement that was its own transaction.
pub(super) fn store_error(operation: &'static str, error: sqlx::Error) -> StoreError {
    match effect(&error) {
        Effect::NotApplied => StoreError::not_applied(operation, error),
        Effect::Unknown => StoreError::ambiguous(operation, error),
    }
}

fn effect(error: &sqlx::Error) -> Effect {
    match error {
        // The database answered: it refused. Lost connections are I/O errors.
        sqlx::Error::Database(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Configuration(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_) => Effect::NotApplied,
        _ => Effect::Unknown,
    }
}

/// A JSON array of strings, the form in which lists travel to both databases.
pub(super) fn json_list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    serde_json::Value::from(items).to_string()
}
