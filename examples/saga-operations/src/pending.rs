//! Decisions that wait for a second operator.

use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use probity_saga::SagaView;
use serde::Serialize;
use service_shell::{Id, Json, Operator, Pool, Problem, sql_ago, sql_now};
use utoipa::ToSchema;

use crate::Operations;
use crate::decide::{Decided, Decision, Verb};

/// A stored decision.
#[derive(Debug, sqlx::FromRow)]
struct Pending {
    id: Id,
    business_type: String,
    business_id: String,
    verb: Verb,
    body: String,
    asked_by: String,
    asked_at: DateTime<Utc>,
}

impl Pending {
    fn decision(&self) -> Result<Decision, Problem> {
        serde_json::from_str(&self.body).map_err(|error| Problem::internal(&error))
    }
}

macro_rules! open_decisions {
    () => {
        concat!(
            "SELECT id, business_type, business_id, verb, body, asked_by, asked_at FROM saga_decisions
              WHERE confirmed_by IS NULL AND asked_at > ",
            // A decision of yesterday is asked for anew.
            sql_ago!("86400")
        )
    };
}

/// Stores a decision for a second operator; the same one of the same operator is stored once.
pub(crate) async fn ask(
    pool: &Pool,
    view: &SagaView,
    verb: Verb,
    decision: &Decision,
    asked_by: &str,
) -> Result<Id, Problem> {
    let (saga_type, business_id) = (&view.instance.saga_type, &view.instance.business_id);
    // What was asked about an older state is never carried out.
    sqlx::query(
        "DELETE FROM saga_decisions
          WHERE business_type = $1 AND business_id = $2 AND row_version <> $3 AND confirmed_by IS NULL",
    )
    .bind(saga_type)
    .bind(business_id)
    .bind(decision.row_version)
    .execute(pool)
    .await?;
    let body = serde_json::to_string(decision).map_err(|error| Problem::internal(&error))?;
    let before: Vec<Pending> =
        sqlx::query_as(concat!(open_decisions!(), " AND business_type = $1 AND business_id = $2"))
            .bind(saga_type)
            .bind(business_id)
            .fetch_all(pool)
            .await?;
    let same =
        |asked: &&Pending| (asked.verb, &asked.body, asked.asked_by.as_str()) == (verb, &body, asked_by);
    if let Some(asked) = before.iter().find(same) {
        return Ok(asked.id);
    }
    let id = Id::new();
    sqlx::query(
        "INSERT INTO saga_decisions (id, business_type, business_id, row_version, verb, body, asked_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(saga_type)
    .bind(business_id)
    .bind(decision.row_version)
    .bind(verb)
    .bind(body)
    .bind(asked_by)
    .execute(pool)
    .await?;
    Ok(id)
}

/// A decision that waits for a second operator.
#[derive(Debug, Serialize, ToSchema)]
struct Waiting {
    id: Id,
    #[serde(rename = "type")]
    saga_type: String,
    business_id: String,
    verb: Verb,
    asked_by: String,
    asked_at: DateTime<Utc>,
    decision: Decision,
}

/// The decisions that wait for a second operator, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Decisions {
    decisions: Vec<Waiting>,
}

/// Lists the decisions that wait for a second operator; each waits for a day, or until its saga moves.
#[utoipa::path(get, path = "/api/v1/saga-decisions", responses(
    (status = 200, description = "At most 100 of them, oldest first.", body = Decisions),
))]
pub(crate) async fn list(State(operations): State<Operations>) -> Result<Json<Decisions>, Problem> {
    let open: Vec<Pending> = sqlx::query_as(concat!(
        open_decisions!(),
        " AND row_version = (SELECT si.row_version FROM saga_instances si
                              WHERE si.business_type = saga_decisions.business_type
                                AND si.business_id = saga_decisions.business_id)
          ORDER BY asked_at, id LIMIT 100"
    ))
    .fetch_all(&operations.pool)
    .await?;
    let own = open.into_iter().filter(|pending| operations.types.contains(&pending.business_type.as_str()));
    let decisions = own.map(|pending| {
        let decision = pending.decision()?;
        let Pending { id, business_type, business_id, verb, asked_by, asked_at, .. } = pending;
        Ok(Waiting { id, saga_type: business_type, business_id, verb, asked_by, asked_at, decision })
    });
    Ok(Json(Decisions { decisions: decisions.collect::<Result<_, Problem>>()? }))
}

/// Confirms a decision of another operator, and carries it out.
///
/// The decision is carried out before it is marked: a confirmation that is sent again finds a saga that has moved, so it
/// decides nothing twice.
#[utoipa::path(post, path = "/api/v1/saga-decisions/{id}/confirm", params(("id" = Id, Path)), responses(
    (status = 200, description = "Confirmed, and carried out.", body = Decided),
    (status = 404, description = "No decision of this id waits."),
    (status = 409, description = "The same operator asked for it, or the saga has moved since."),
))]
pub(crate) async fn confirm(
    State(operations): State<Operations>,
    operator: Operator,
    Path(id): Path<Id>,
) -> Result<Json<Decided>, Problem> {
    let open: Option<Pending> = sqlx::query_as(concat!(open_decisions!(), " AND id = $1"))
        .bind(id)
        .fetch_optional(&operations.pool)
        .await?;
    let open = open.filter(|pending| operations.types.contains(&pending.business_type.as_str()));
    let pending = open.ok_or_else(|| Problem::not_found("decision that waits for a second operator"))?;
    if pending.asked_by == operator.name() {
        let detail = "this operator asked for the decision: another one confirms it";
        return Err(Problem::conflict("second-operator-needed", detail));
    }
    let decision = pending.decision()?;
    let actor = format!("{}, confirmed by {}", pending.asked_by, operator.name());
    let (saga_type, business_id) = (&pending.business_type, &pending.business_id);
    let certain = operations.carry_out(&actor, saga_type, business_id, pending.verb, &decision).await?;
    sqlx::query(concat!(
        "UPDATE saga_decisions SET confirmed_by = $2, confirmed_at = ",
        sql_now!(),
        " WHERE id = $1 AND confirmed_by IS NULL"
    ))
    .bind(id)
    .bind(operator.name())
    .execute(&operations.pool)
    .await?;
    Ok(Json(operations.decided(saga_type, business_id, certain).await?))
}
