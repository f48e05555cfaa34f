//! Sagas as operators see them.

use axum::extract::{Path, Query, State};
use chrono::{DateTime, Utc};
use probity_saga::{
    ListFilter, Status, StepStatus,
    store::{Instance, StepRow},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_shell::{Id, Json, Pool, Problem};
use utoipa::{IntoParams, ToSchema};

use crate::{Operations, Verb, refused};

/// The choice of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only sagas of this type, such as `payment`.
    #[serde(rename = "type")]
    saga_type: Option<String>,
    /// Only sagas in this status, such as `stuck`.
    status: Option<String>,
    /// The `next` of the page before.
    before: Option<Id>,
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
}

/// A saga without its steps.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Summary {
    id: String,
    #[serde(rename = "type")]
    saga_type: String,
    business_id: String,
    status: String,
    /// The status in which it goes on after `stuck` or `paused`.
    resumes_as: Option<String>,
    /// The reason for which it turned back or stopped.
    reason: Option<String>,
    current_step: u32,
    /// The number of steps whose effect is not known.
    unresolved_steps: u32,
    age_seconds: u64,
    /// True while a worker drives it.
    driven: bool,
    cancel_requested: Option<String>,
    pause_requested: bool,
    /// The version that a decision names.
    row_version: i64,
}

/// A page of sagas, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sagas {
    sagas: Vec<Summary>,
    /// The `before` of the next page; null at the end.
    next: Option<String>,
}

/// A step of a saga.
#[derive(Debug, Serialize, ToSchema)]
struct Step {
    step: u32,
    name: String,
    status: String,
    /// True if its effect, or its undo, is not known.
    open: bool,
    /// The answer that the step returned, as `resolve` takes it from a person.
    #[schema(value_type = Option<Object>)]
    output: Option<Value>,
    error: Option<String>,
    evidence: Option<String>,
    retries: u32,
    undo_retries: u32,
    retry_in_seconds: Option<u64>,
    resolved_by: Option<String>,
}

/// A verb that applies to a saga now.
#[derive(Debug, Serialize, ToSchema)]
struct Possible {
    verb: Verb,
    does: &'static str,
}

/// A saga with its steps, the decisions of the past, and the decisions that are possible now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Shown {
    #[serde(flatten)]
    saga: Summary,
    steps: Vec<Step>,
    audit: Vec<Audit>,
    verbs: Vec<Possible>,
}

/// Lists sagas, newest first.
#[utoipa::path(get, path = "/api/v1/sagas", params(Filter), responses(
    (status = 200, description = "A page of sagas.", body = Sagas),
    (status = 422, description = "The status or the limit cannot be right."),
))]
pub(crate) async fn list(
    State(operations): State<Operations>,
    Query(filter): Query<Filter>,
) -> Result<Json<Sagas>, Problem> {
    let limit = filter.limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let status = filter.status.as_deref().map(str::parse::<Status>).transpose();
    let status = status.map_err(|error| Problem::invalid("status", error))?;
    if let Some(other) = filter.saga_type.as_deref().filter(|name| !operations.types.contains(name)) {
        let known = operations.types.join(", ");
        return Err(Problem::invalid("type", format!("must be one of {known}, not {other}")));
    }
    let before = filter.before.map(|id| id.0.into());
    let filter = ListFilter { saga_type: filter.saga_type, status, before, limit };
    let found = operations.sagas.list(&filter).await.map_err(refused)?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|last| last.id.to_string());
    let own = found.iter().filter(|instance| operations.types.contains(&instance.saga_type.as_str()));
    Ok(Json(Sagas { sagas: own.map(Summary::of).collect(), next }))
}

/// Shows one saga: its steps, its audit, and the verbs that apply to it.
#[utoipa::path(get, path = "/api/v1/sagas/{type}/{business_id}", responses(
    (status = 200, description = "The saga.", body = Shown),
    (status = 404, description = "There is none."),
))]
pub(crate) async fn show(
    State(operations): State<Operations>,
    Path((saga_type, business_id)): Path<(String, String)>,
) -> Result<Json<Shown>, Problem> {
    let view = operations.find(&saga_type, &business_id).await?;
    let audit = audit(&operations.pool, Id(view.instance.id.as_uuid())).await?;
    let verbs = verbs_for(view.instance.status);
    Ok(Json(Shown {
        saga: Summary::of(&view.instance),
        steps: view.steps.iter().map(Step::of).collect(),
        audit,
        verbs: verbs.iter().map(|verb| Possible { verb: *verb, does: verb.does() }).collect(),
    }))
}

/// The verbs that apply to a saga in this status.
#[must_use]
pub fn verbs_for(status: Status) -> &'static [Verb] {
    match status {
        Status::Stuck => &[Verb::Retry, Verb::Resolve, Verb::Compensate, Verb::Abort],
        Status::Paused => &[Verb::Resume, Verb::Resolve, Verb::Compensate, Verb::Abort],
        Status::Pending | Status::InProgress => &[Verb::Pause, Verb::Compensate],
        Status::Committing | Status::Compensating => &[Verb::Pause],
        Status::Completed | Status::Compensated | Status::Aborted => &[],
    }
}

impl Summary {
    fn of(instance: &Instance) -> Summary {
        Summary {
            id: instance.id.to_string(),
            saga_type: instance.saga_type.clone(),
            business_id: instance.business_id.clone(),
            status: instance.status.to_string(),
            resumes_as: instance.resume_status.map(|status| status.to_string()),
            reason: instance.reason.clone(),
            current_step: instance.current_step,
            unresolved_steps: instance.unresolved,
            age_seconds: instance.age.as_secs(),
            driven: instance.owner.is_some(),
            cancel_requested: instance.cancel_requested.clone(),
            pause_requested: instance.pause_requested,
            row_version: instance.row_version,
        }
    }
}

impl Step {
    fn of(step: &StepRow) -> Step {
        Step {
            step: step.order,
            name: step.name.clone().into_owned(),
            status: step.status.to_string(),
            open: is_open(step),
            output: step.output.as_ref().and_then(|output| output.decode().ok()),
            error: step.error.clone(),
            evidence: step.evidence.clone(),
            retries: step.retries,
            undo_retries: step.undo_retries,
            retry_in_seconds: step.retry_in.map(|wait| wait.as_secs()),
            resolved_by: step.resolved_by.clone(),
        }
    }
}

/// Returns true for a step whose effect, or whose undo, is not known.
pub(crate) fn is_open(step: &StepRow) -> bool {
    match step.status {
        StepStatus::Executing | StepStatus::Compensating => step.retry_in.is_none(),
        status => matches!(status, StepStatus::Unknown | StepStatus::CompensationFailed),
    }
}

/// A decision of the past.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
struct Audit {
    at: DateTime<Utc>,
    actor: String,
    action: String,
    reason: String,
    before: String,
    after: String,
}

async fn audit(pool: &Pool, saga: Id) -> Result<Vec<Audit>, sqlx::Error> {
    sqlx::query_as(
        "SELECT at, actor, action, reason, before, after FROM saga_audit WHERE saga_id = $1 ORDER BY id",
    )
    .bind(saga)
    .fetch_all(pool)
    .await
}
