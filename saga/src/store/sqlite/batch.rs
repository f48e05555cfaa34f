//! Batches as JSON: one statement takes all of a batch, so that its price is paid once.

use std::time::Duration;

use serde::Serialize;

use crate::policy::LONGEST;
use crate::record::{Change, NewSaga, Record, SagaId, StepRow};

/// New sagas, each as a list in the order of the statement.
pub(super) fn starts(sagas: &[NewSaga]) -> Result<String, sqlx::Error> {
    let start = |saga: &'_ NewSaga| {
        let NewSaga { id, saga_type, business_id, definition, input, input_hash, owner, trace } = saga;
        let (id, owner) = (id.to_string(), owner.to_string());
        serde_json::json!([id, business_id, saga_type, definition, input.as_json(), input_hash, owner, trace])
    };
    json(&sagas.iter().map(start).collect::<Vec<_>>())
}

/// The rows of sagas that records write.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Heads<'a>(Vec<Head<'a>>);

#[derive(Serialize)]
struct Head<'a> {
    saga: String,
    epoch: i64,
    write_no: i64,
    from: &'static str,
    status: &'static str,
    resume: Option<&'static str>,
    reason: Option<&'a str>,
    current_step: u32,
    unresolved: u32,
    release: Option<String>,
    turning: bool,
}

impl<'a> Heads<'a> {
    pub(super) fn of(records: &'a [Record], rewrite: bool) -> Self {
        let head = |record: &'a Record| Head {
            saga: record.saga.to_string(),
            epoch: record.epoch,
            write_no: record.write_no,
            from: record.from.as_str(),
            status: record.change.status.as_str(),
            resume: record.change.resume_status.map(|status| status.as_str()),
            reason: record.change.reason.as_deref(),
            current_step: record.change.current_step,
            unresolved: record.change.unresolved,
            release: record.release.map(modifier),
            turning: record.turning,
        };
        Self(records.iter().filter(|record| rewrite || !record.only_appends()).map(head).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn json(&self) -> Result<String, sqlx::Error> {
        json(self)
    }
}

/// The step rows that records or a decision write.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Steps<'a>(Vec<Step<'a>>);

#[derive(Serialize)]
struct Step<'a> {
    saga: String,
    epoch: i64,
    write_no: i64,
    /// The status that the saga must have; none if its row is written as well.
    appends_to: Option<&'static str>,
    order: u32,
    name: &'a str,
    status: &'static str,
    output: Option<&'a str>,
    error: Option<&'a str>,
    retries: u32,
    retries_max: u32,
    retry_in: Option<String>,
    evidence: Option<&'a str>,
    undo_retries: u32,
    completion: u32,
    resolved_by: Option<&'a str>,
}

impl<'a> Steps<'a> {
    pub(super) fn of(records: &'a [Record], rewrite: bool) -> Self {
        let mut steps = Vec::with_capacity(records.len());
        for record in records {
            let appends_to = (!rewrite && record.only_appends()).then(|| record.from.as_str());
            let Record { saga, epoch, write_no, change, .. } = record;
            steps.extend(change.steps.iter().map(|row| step(*saga, *epoch, *write_no, appends_to, row)));
        }
        Self(steps)
    }

    /// A decision begins an epoch; nothing was written in it yet.
    pub(super) fn of_decision(saga: SagaId, epoch: i64, change: &'a Change) -> Self {
        Self(change.steps.iter().map(|row| step(saga, epoch, 0, None, row)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn json(&self) -> Result<String, sqlx::Error> {
        json(self)
    }
}

fn step<'a>(
    saga: SagaId,
    epoch: i64,
    write_no: i64,
    appends_to: Option<&'static str>,
    row: &'a StepRow,
) -> Step<'a> {
    Step {
        saga: saga.to_string(),
        epoch,
        write_no,
        appends_to,
        order: row.order,
        name: &row.name,
        status: row.status.as_str(),
        output: row.output.as_ref().map(|output| output.as_json()),
        error: row.error.as_deref(),
        retries: row.retries,
        retries_max: row.retries_max,
        retry_in: row.retry_in.map(modifier),
        evidence: row.evidence.as_deref(),
        undo_retries: row.undo_retries,
        completion: row.completion,
        resolved_by: row.resolved_by.as_deref(),
    }
}

/// A duration as SQLite's time functions take it; they know no year above 9999.
pub(super) fn modifier(duration: Duration) -> String {
    let duration = duration.min(LONGEST);
    format!("+{}.{:03} seconds", duration.as_secs(), duration.subsec_millis())
}

fn json(batch: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(batch).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}
