//! Batches as columns: one array per parameter, in the order of the statements.

use std::time::Duration;

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use crate::policy::LONGEST;
use crate::record::{Record, StepRow};

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A duration as the statements take it; a time of the server ends somewhere.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.min(LONGEST).as_millis()).unwrap_or(i64::MAX)
}

/// The columns that fence a record.
#[derive(Default)]
struct Fences {
    id: Vec<Uuid>,
    epoch: Vec<i64>,
    write_no: Vec<i64>,
    from: Vec<&'static str>,
}

impl Fences {
    fn of(records: &[&Record]) -> Self {
        Self {
            id: records.iter().map(|record| record.saga.as_uuid()).collect(),
            epoch: records.iter().map(|record| record.epoch).collect(),
            write_no: records.iter().map(|record| record.write_no).collect(),
            from: records.iter().map(|record| record.from.as_str()).collect(),
        }
    }

    fn bind(self, query: Statement<'_>) -> Statement<'_> {
        query.bind(self.id).bind(self.epoch).bind(self.write_no).bind(self.from)
    }
}

/// For records that only append their one step row.
pub(super) fn bind_appends<'q>(query: Statement<'q>, records: &[&'q Record]) -> Statement<'q> {
    let steps = records.iter().map(|record| record.change.steps.first());
    Steps::of(steps).bind(Fences::of(records).bind(query))
}

/// For records that write their saga's row, and at most one step row.
pub(super) fn bind_writes<'q>(query: Statement<'q>, records: &[&'q Record]) -> Statement<'q> {
    let steps = || records.iter().map(|record| record.change.steps.first());
    Steps::of(steps()).bind(bind_heads(query, records)).bind(retries_in(steps())).bind(turning(records))
}

/// For records that write their saga's row, and any number of step rows.
pub(super) fn bind_many<'q>(query: Statement<'q>, records: &[&'q Record]) -> Statement<'q> {
    let steps = || records.iter().flat_map(|record| record.change.steps.iter().map(Some));
    let sagas = records.iter().flat_map(|record| vec![record.saga.as_uuid(); record.change.steps.len()]);
    let query = Steps::of(steps()).bind(bind_heads(query, records)).bind(retries_in(steps()));
    query.bind(sagas.collect::<Vec<Uuid>>()).bind(turning(records))
}

/// For a decision, which is about one saga and tries nothing later.
pub(super) fn bind_decided<'q>(query: Statement<'q>, steps: &'q [StepRow]) -> Statement<'q> {
    Steps::of(steps.iter().map(Some)).bind(query)
}

fn bind_heads<'q>(query: Statement<'q>, records: &[&'q Record]) -> Statement<'q> {
    let changes = || records.iter().map(|record| &record.change);
    let keeps = records.iter().map(|record| record.release.is_none() && record.change.status.is_active());
    Fences::of(records)
        .bind(query)
        .bind(changes().map(|change| change.status.as_str()).collect::<Vec<_>>())
        .bind(changes().map(|change| change.resume_status.map(|status| status.as_str())).collect::<Vec<_>>())
        .bind(changes().map(|change| change.reason.as_deref()).collect::<Vec<_>>())
        .bind(changes().map(|change| i64::from(change.current_step)).collect::<Vec<_>>())
        .bind(changes().map(|change| i64::from(change.unresolved)).collect::<Vec<_>>())
        .bind(records.iter().map(|record| record.release.map(millis)).collect::<Vec<_>>())
        .bind(changes().map(|change| change.status.is_active()).collect::<Vec<_>>())
        .bind(keeps.collect::<Vec<_>>())
}

fn turning(records: &[&Record]) -> Vec<bool> {
    records.iter().map(|record| record.turning).collect()
}

fn retries_in<'a>(steps: impl Iterator<Item = Option<&'a StepRow>>) -> Vec<Option<i64>> {
    steps.map(|step| step.and_then(|step| step.retry_in).map(millis)).collect()
}

/// The step rows; a column is NULL where a record writes no step row, and where the table leaves the value out.
#[derive(Default)]
struct Steps<'a> {
    order: Vec<Option<i64>>,
    name: Vec<Option<&'a str>>,
    status: Vec<Option<&'static str>>,
    output: Vec<Option<&'a str>>,
    error: Vec<Option<&'a str>>,
    retries: Vec<Option<i64>>,
    retries_max: Vec<Option<i64>>,
    evidence: Vec<Option<&'a str>>,
    undo_retries: Vec<Option<i64>>,
    completion: Vec<Option<i64>>,
    resolved_by: Vec<Option<&'a str>>,
}

impl<'a> Steps<'a> {
    fn of(steps: impl Iterator<Item = Option<&'a StepRow>>) -> Self {
        let mut columns = Self::default();
        for step in steps {
            columns.order.push(step.map(|step| step.order.into()));
            columns.name.push(step.map(|step| &*step.name));
            columns.status.push(step.map(|step| step.status.as_str()));
            columns.output.push(step.and_then(|step| step.output.as_ref()).map(|output| output.as_json()));
            columns.error.push(step.and_then(|step| step.error.as_deref()));
            columns.retries.push(step.and_then(|step| unless(step.retries, 0)));
            columns.retries_max.push(step.map(|step| step.retries_max.min(i32::MAX as u32).into()));
            columns.evidence.push(step.and_then(|step| step.evidence.as_deref()));
            columns.undo_retries.push(step.and_then(|step| unless(step.undo_retries, 0)));
            columns.completion.push(step.and_then(|step| unless(step.completion, step.order)));
            columns.resolved_by.push(step.and_then(|step| step.resolved_by.as_deref()));
        }
        columns
    }

    fn bind<'q>(self, query: Statement<'q>) -> Statement<'q>
    where
        'a: 'q,
    {
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
            .bind(self.resolved_by)
    }
}

fn unless(number: u32, usual: u32) -> Option<i64> {
    (number != usual).then(|| number.into())
}
