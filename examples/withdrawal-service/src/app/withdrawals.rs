//! Withdrawals: merchants ask, look and cancel; approvers approve and reject.

use axum::Json;
use axum::extract::{Path, Query, State};
use http::{StatusCode, header};
use probity_idempotency::{Lease, Recording};
use serde::Deserialize;
use serde_json::{Value, json};
use service_shell::{Id, JsonBody, MerchantId, Problem};

use super::{App, answer};
use crate::domain::{NewWithdrawal, Withdrawal, text};
use crate::store::{self, Change};

pub(super) async fn create(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    lease: Lease,
    JsonBody(new): JsonBody<NewWithdrawal>,
) -> Result<Recording, Problem> {
    let money = new.money()?;
    let request = lease.record_id();
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.create")
        .run(async |tx| store::create(tx, merchant, &new, money, &request).await)
        .await?;
    let location = format!("/api/v1/withdrawals/{}", withdrawal.id);
    Ok(answer(StatusCode::CREATED, &withdrawal)?.header(header::LOCATION.as_str(), location))
}

pub(super) async fn get(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    Path(id): Path<Id>,
) -> Result<Json<Withdrawal>, Problem> {
    let found = store::find_of(&app.pool, merchant, id).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("withdrawal"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<Id>,
    limit: Option<i64>,
}

pub(super) async fn list(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let withdrawals = store::list(&app.pool, merchant, page.after, limit).await?;
    let full = i64::try_from(withdrawals.len()).is_ok_and(|found| found == limit);
    let next = withdrawals.last().filter(|_| full).map(|last| last.id);
    Ok(Json(json!({"withdrawals": withdrawals, "next": next})))
}

pub(super) async fn cancel(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    Path(id): Path<Id>,
) -> Result<Recording, Problem> {
    change(&app, Some(merchant), id, &Change::Cancel).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    approver: String,
}

pub(super) async fn approve(
    State(app): State<App>,
    Path(id): Path<Id>,
    lease: Lease,
    JsonBody(approval): JsonBody<Approval>,
) -> Result<Recording, Problem> {
    let person = text("approver", &approval.approver, 100)?.to_lowercase();
    let request = lease.record_id();
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.approve")
        .run(async |tx| store::approve(tx, id, &person, &request).await)
        .await?;
    answer(StatusCode::OK, &withdrawal)
}

/// Answers as soon as the intent is durable; the withdrawal says how far it is.
pub(super) async fn execute(State(app): State<App>, Path(id): Path<Id>) -> Result<Recording, Problem> {
    let (withdrawal, payout) =
        probity_txn::on(&app.pool, "withdrawal.execute").run(async |tx| store::execute(tx, id).await).await?;
    app.payouts.run(&payout).await;
    answer(StatusCode::ACCEPTED, &withdrawal)
}

/// Lets the saga of a withdrawal go on that waits for a person: stuck or paused.
pub(super) async fn retry(State(app): State<App>, Path(id): Path<Id>) -> Result<Recording, Problem> {
    let found = store::find(&app.pool, id).await?;
    let withdrawal = found.ok_or_else(|| Problem::not_found("withdrawal"))?;
    app.payouts.retry(&withdrawal.withdrawal_no).await?;
    answer(StatusCode::ACCEPTED, &withdrawal)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejection {
    approver: String,
    reason: String,
}

pub(super) async fn reject(
    State(app): State<App>,
    Path(id): Path<Id>,
    JsonBody(rejection): JsonBody<Rejection>,
) -> Result<Recording, Problem> {
    let person = text("approver", &rejection.approver, 100)?;
    let reason = text("reason", &rejection.reason, 200)?;
    change(&app, None, id, &Change::Reject(format!("{person}: {reason}"))).await
}

async fn change(app: &App, merchant: Option<Id>, id: Id, change: &Change) -> Result<Recording, Problem> {
    let withdrawal = probity_txn::on(&app.pool, "withdrawal.change")
        .run(async |tx| store::change(tx, merchant, id, change).await)
        .await?;
    answer(StatusCode::OK, &withdrawal)
}
