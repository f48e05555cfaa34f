//! Withdrawals: merchants ask, look and cancel; operators approve, reject and execute.

use axum::extract::{Path, Query, State};
use http::{StatusCode, header};
use probity_idempotency::{Lease, Recording};
use serde::Deserialize;
use service_shell::{Id, Json, Operator, Page, Problem, World};
use utoipa::ToSchema;

use super::{App, answer};
use crate::domain::{NewWithdrawal, Status, Withdrawal, Withdrawals, text};
use crate::store::{self, Change};

/// Asks for a withdrawal; it waits for its approvals.
#[utoipa::path(post, path = "/api/v1/withdrawals", params(World), responses(
    (status = 201, description = "The withdrawal.", body = Withdrawal),
))]
pub(super) async fn create(
    State(app): State<App>,
    world: World,
    lease: Lease,
    Json(new): Json<NewWithdrawal>,
) -> Result<Recording, Problem> {
    let money = new.money()?;
    let request = lease.record_id();
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.create")
        .run(async |tx| store::create(tx, world, &new, money, &request).await)
        .await?;
    let location = format!("/api/v1/withdrawals/{}", withdrawal.id);
    Ok(answer(StatusCode::CREATED, &withdrawal)?.header(header::LOCATION.as_str(), location))
}

/// Shows one withdrawal of a merchant.
#[utoipa::path(get, path = "/api/v1/withdrawals/{id}", params(World, ("id" = Id, Path)), responses(
    (status = 200, description = "The withdrawal.", body = Withdrawal),
    (status = 404, description = "The merchant has no such withdrawal."),
))]
pub(super) async fn get(
    State(app): State<App>,
    world: World,
    Path(id): Path<Id>,
) -> Result<Json<Withdrawal>, Problem> {
    let found = store::find_of(&app.pool, world, id).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("withdrawal"))
}

/// Lists a merchant's withdrawals in the order of creation; `next` is the `after` of the next page.
#[utoipa::path(get, path = "/api/v1/withdrawals", params(World, Page), responses(
    (status = 200, description = "One page.", body = Withdrawals),
    (status = 422, description = "The limit is out of bounds."),
))]
pub(super) async fn list(
    State(app): State<App>,
    world: World,
    Query(page): Query<Page>,
) -> Result<Json<Withdrawals>, Problem> {
    let limit = page.limit()?;
    let withdrawals = store::list(&app.pool, world, page.after, limit).await?;
    Ok(Json(paged(withdrawals, limit)))
}

/// Lists the withdrawals of all merchants that wait for a person: `pending` and `approved`, in the order of creation.
#[utoipa::path(get, path = "/api/v1/operations/withdrawals", params(Page), responses(
    (status = 200, description = "One page.", body = Withdrawals),
    (status = 422, description = "The limit is out of bounds."),
))]
pub(super) async fn waiting(
    State(app): State<App>,
    Query(page): Query<Page>,
) -> Result<Json<Withdrawals>, Problem> {
    let limit = page.limit()?;
    Ok(Json(paged(store::waiting(&app.pool, page.after, limit).await?, limit)))
}

/// Shows one withdrawal of any merchant to an operator.
#[utoipa::path(get, path = "/api/v1/operations/withdrawals/{id}", params(("id" = Id, Path)), responses(
    (status = 200, description = "The withdrawal.", body = Withdrawal),
    (status = 404, description = "There is no such withdrawal."),
))]
pub(super) async fn show(State(app): State<App>, Path(id): Path<Id>) -> Result<Json<Withdrawal>, Problem> {
    let found = store::find(&app.pool, id).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("withdrawal"))
}

fn paged(withdrawals: Vec<Withdrawal>, limit: i64) -> Withdrawals {
    let full = i64::try_from(withdrawals.len()).is_ok_and(|found| found == limit);
    let next = withdrawals.last().filter(|_| full).map(|last| last.id);
    Withdrawals { withdrawals, next }
}

/// Takes a withdrawal back, as long as the money is not on its way.
#[utoipa::path(post, path = "/api/v1/withdrawals/{id}/cancel", params(World, ("id" = Id, Path)), responses(
    (status = 200, description = "The withdrawal.", body = Withdrawal),
    (status = 404, description = "The merchant has no such withdrawal."),
))]
pub(super) async fn cancel(
    State(app): State<App>,
    world: World,
    Path(id): Path<Id>,
) -> Result<Recording, Problem> {
    change(&app, Some(world), id, &Change::Cancel).await
}

/// A body without fields: who approves says the token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoFields {}

/// Takes the approval of the operator who sends it.
///
/// A person approves once; the last one needed makes it `approved`.
#[utoipa::path(post, path = "/api/v1/withdrawals/{id}/approve", params(("id" = Id, Path)), responses(
    (status = 200, description = "The withdrawal.", body = Withdrawal),
    (status = 404, description = "There is no such withdrawal."),
))]
pub(super) async fn approve(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<Id>,
    lease: Lease,
    Json(NoFields {}): Json<NoFields>,
) -> Result<Recording, Problem> {
    let request = lease.record_id();
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.approve")
        .run(async |tx| store::approve(tx, id, operator.name(), &request).await)
        .await?;
    answer(StatusCode::OK, &withdrawal)
}

/// Sends the money: freeze, bank transfer, deduct.
///
/// The answer comes as soon as the intent is durable; the withdrawal says how far it is.
#[utoipa::path(post, path = "/api/v1/withdrawals/{id}/execute", params(("id" = Id, Path)), responses(
    (status = 202, description = "The withdrawal, `processing`.", body = Withdrawal),
    (status = 404, description = "There is no such withdrawal."),
))]
pub(super) async fn execute(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<Id>,
) -> Result<Recording, Problem> {
    let (withdrawal, payout) = probity_txn::on(&app.pool, "withdrawal.execute")
        .run(async |tx| store::execute(tx, id, operator.name()).await)
        .await?;
    // The saga of one that has ended may be forgotten, and would begin again.
    if withdrawal.status == Status::Processing {
        app.payouts.run(&payout).await;
    }
    answer(StatusCode::ACCEPTED, &withdrawal)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejection {
    #[schema(min_length = 1, max_length = 200)]
    reason: String,
}

/// Refuses a withdrawal, as long as the money is not on its way.
#[utoipa::path(post, path = "/api/v1/withdrawals/{id}/reject", params(("id" = Id, Path)), responses(
    (status = 200, description = "The withdrawal.", body = Withdrawal),
    (status = 404, description = "There is no such withdrawal."),
))]
pub(super) async fn reject(
    State(app): State<App>,
    operator: Operator,
    Path(id): Path<Id>,
    Json(rejection): Json<Rejection>,
) -> Result<Recording, Problem> {
    let reason = text("reason", &rejection.reason, 200)?;
    change(&app, None, id, &Change::Reject { operator: operator.name().to_owned(), reason }).await
}

async fn change(app: &App, world: Option<World>, id: Id, change: &Change) -> Result<Recording, Problem> {
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.change")
        .run(async |tx| store::change(tx, world, id, change).await)
        .await?;
    answer(StatusCode::OK, &withdrawal)
}
