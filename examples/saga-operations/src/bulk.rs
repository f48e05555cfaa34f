//! Retries of many sagas at once, after an outage.

use axum::extract::State;
use probity_saga::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_shell::{Json, Operator, Problem};
use utoipa::ToSchema;

use crate::Operations;
use crate::decide::{Decision, Verb, check_reason};

/// The most sagas of one request.
const MOST: usize = 100;

/// The sagas, each as it was seen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retries {
    #[schema(min_items = 1, max_items = 100)]
    sagas: Vec<Seen>,
    /// Kept in the audit.
    reason: String,
    /// True answers what would be done, and does nothing.
    preview: bool,
}

/// A saga as it was seen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Seen {
    #[serde(rename = "type")]
    saga_type: String,
    business_id: String,
    row_version: i64,
}

/// The answer about one saga.
#[derive(Debug, Serialize, ToSchema)]
struct Retried {
    #[serde(rename = "type")]
    saga_type: String,
    business_id: String,
    /// The decision that was made, or would be.
    verb: Option<Verb>,
    /// The reason why there is none, as a problem document.
    problem: Option<Value>,
}

/// The answers, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetriedSagas {
    preview: bool,
    sagas: Vec<Retried>,
}

/// Retries stuck sagas and resumes paused ones, each as it was seen.
///
/// Each saga has an answer of its own. A preview changes nothing.
#[utoipa::path(post, path = "/api/v1/saga-retries", responses(
    (status = 200, description = "One answer for each saga.", body = RetriedSagas),
    (status = 422, description = "A field cannot be right."),
))]
pub(crate) async fn retry(
    State(operations): State<Operations>,
    operator: Operator,
    Json(retries): Json<Retries>,
) -> Result<Json<RetriedSagas>, Problem> {
    if !(1..=MOST).contains(&retries.sagas.len()) {
        return Err(Problem::invalid("sagas", format!("must name 1 to {MOST} sagas")));
    }
    check_reason(&retries.reason)?;
    if retries.sagas.iter().any(|seen| seen.business_id.chars().any(char::is_control)) {
        return Err(Problem::invalid("sagas", "must not have control characters in a business_id"));
    }
    let mut answers = Vec::with_capacity(retries.sagas.len());
    // An outage concerns all that follow, and what was done before it must be said.
    let mut outage = None;
    for seen in &retries.sagas {
        let done = match &outage {
            Some(problem) => Err(Problem::clone(problem)),
            None => one(&operations, &operator, seen, &retries).await,
        };
        let (verb, problem) = match done {
            Ok(verb) => (Some(verb), None),
            Err(problem) => {
                outage = problem.status().is_server_error().then(|| problem.clone());
                (None, Some(problem.body()))
            }
        };
        let (saga_type, business_id) = (seen.saga_type.clone(), seen.business_id.clone());
        answers.push(Retried { saga_type, business_id, verb, problem });
    }
    Ok(Json(RetriedSagas { preview: retries.preview, sagas: answers }))
}

async fn one(
    operations: &Operations,
    operator: &Operator,
    seen: &Seen,
    retries: &Retries,
) -> Result<Verb, Problem> {
    let instance = operations.find(&seen.saga_type, &seen.business_id).await?.instance;
    let verb = match instance.status {
        Status::Stuck => Verb::Retry,
        Status::Paused => Verb::Resume,
        status => {
            let detail = format!("it is {status}: only a stuck or a paused saga is retried");
            return Err(Problem::conflict("saga-state", detail));
        }
    };
    if instance.row_version != seen.row_version {
        return Err(crate::refused(probity_saga::SagaError::Stale));
    }
    if !retries.preview {
        let decision = Decision {
            row_version: seen.row_version,
            reason: retries.reason.clone(),
            step: None,
            outcome: None,
            output: None,
        };
        operations.carry_out(operator.name(), &seen.saga_type, &seen.business_id, verb, &decision).await?;
    }
    Ok(verb)
}
