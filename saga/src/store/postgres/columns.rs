//! Batches as columns: one array per parameter, in the order of the statements.

use std::time::Duration;

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use crate::record::{Record, SagaId, StepRow};

/// A duration as the statements take it.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The instance side of a batch of records.
#[derive(Default)]
pub(super) struct Instances {
    id: Vec<Uuid>,
    epoch: Vec<i64>,
    write_no: Vec<i64>,
    from: Vec<&'static str>,
    status: Vec<&'static str>,
    resume: Vec<Option<&'static str>>,
    reason: Vec<Option<String>>,
    current_step: Vec<i64>,
    unresolved: Vec<i64>,
    release: Vec<Option<i64>>,
    appends: Vec<bool>,
}

impl Instances {
    /// With `rewrite`, also a mere step forward writes its saga's row.
    pub(super) fn of(records: &[Record], rewrite: bool) -> Self {
        let mut columns = Self::default();
        for record in records {
            let change = &record.change;
            columns.id.push(record.saga.as_uuid());
            columns.epoch.push(record.epoch);
            columns.write_no.push(record.write_no);
            columns.from.push(record.from.as_str());
            columns.status.push(change.status.as_str());
            columns.resume.push(change.resume_status.map(|status| status.as_str()));
            columns.reason.push(change.reason.clone());
            columns.current_step.push(change.current_step.into());
            columns.unresolved.push(change.unresolved.into());
            columns.release.push(record.release.map(millis));
            columns.appends.push(!rewrite && record.only_appends());
        }
        columns
    }

    pub(super) fn bind(self, query: Query<'_, Postgres, PgArguments>) -> Query<'_, Postgres, PgArguments> {
        query
            .bind(self.id)
            .bind(self.epoch)
            .bind(self.write_no)
            .bind(self.from)
            .bind(self.status)
            .bind(self.resume)
            .bind(self.reason)
            .bind(self.current_step)
            .bind(self.unresolved)
            .bind(self.release)
            .bind(self.appends)
    }
}

/// The step side.
#[derive(Default)]
pub(super) struct Steps {
    saga: Vec<Uuid>,
    order: Vec<i64>,
    name: Vec<String>,
    status: Vec<&'static str>,
    output: Vec<Option<String>>,
    error: Vec<Option<String>>,
    retries: Vec<i64>,
    retries_max: Vec<i64>,
    retry_in: Vec<Option<i64>>,
    evidence: Vec<Option<String>>,
    undo_retries: Vec<i64>,
    completion: Vec<i64>,
    key: Vec<String>,
    resolved_by: Vec<Option<String>>,
}

impl Steps {
    pub(super) fn of<'a>(steps: impl Iterator<Item = (SagaId, &'a StepRow)>) -> Self {
        let mut columns = Self::default();
        for (saga, step) in steps {
            columns.saga.push(saga.as_uuid());
            columns.order.push(step.order.into());
            columns.name.push(step.name.clone());
            columns.status.push(step.status.as_str());
            columns.output.push(step.output.as_ref().map(|output| output.as_json().to_owned()));
            columns.error.push(step.error.clone());
            columns.retries.push(step.retries.into());
            columns.retries_max.push(step.retries_max.into());
            columns.retry_in.push(step.retry_in.map(millis));
            columns.evidence.push(step.evidence.clone());
            columns.undo_retries.push(step.undo_retries.into());
            columns.completion.push(step.completion.into());
            columns.key.push(step.key.clone());
            columns.resolved_by.push(step.resolved_by.clone());
        }
        columns
    }

    /// For results: with the saga of each step, and when it is tried again.
    pub(super) fn bind_all(
        self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Query<'_, Postgres, PgArguments> {
        query
            .bind(self.saga)
            .bind(self.order)
            .bind(self.name)
            .bind(self.status)
            .bind(self.output)
            .bind(self.error)
            .bind(self.retries)
            .bind(self.retries_max)
            .bind(self.retry_in)
            .bind(self.evidence)
            .bind(self.undo_retries)
            .bind(self.completion)
            .bind(self.key)
            .bind(self.resolved_by)
    }

    /// For a decision, which is about one saga and tries nothing later.
    pub(super) fn bind_decided(
        self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Query<'_, Postgres, PgArguments> {
        query
            .bind(self.order)
            .bind(self.name)
            .bind(self.status)
            .bind(self.output)
            .bind(self.error)
            .bind(self.retries)
            .bind(self.retries_max)
            .bind(self.evidence)
            .bind(self.undo_retries)
            .bind(self.completion)
            .bind(self.key)
            .bind(self.resolved_by)
    }
}
