//! Bank accounts and balances.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use probity_idempotency::{Lease, Recording};
use serde_json::{Value, json};
use service_shell::{Id, JsonBody, MerchantId, Problem};

use super::{App, answer};
use crate::domain::{NewBankAccount, NewCredit};
use crate::store;

pub(super) async fn create(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    lease: Lease,
    JsonBody(new): JsonBody<NewBankAccount>,
) -> Result<Recording, Problem> {
    let new = new.checked()?;
    let request = lease.record_id();
    let account = probity_txn::on(&app.pool, "bank-account.create")
        .run(async |tx| store::add_account(tx, merchant, &new, &request).await)
        .await?;
    answer(StatusCode::CREATED, &account)
}

pub(super) async fn set_default(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    Path(id): Path<Id>,
) -> Result<Recording, Problem> {
    let account = probity_txn::on(&app.pool, "bank-account.set-default")
        .run(async |tx| store::set_default(tx, merchant, id).await)
        .await?;
    answer(StatusCode::OK, &account)
}

pub(super) async fn list(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({"bank_accounts": store::accounts(&app.pool, merchant).await?})))
}

pub(super) async fn balances(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({"balances": store::balances(&app.pool, merchant).await?})))
}

pub(super) async fn credit(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    lease: Lease,
    JsonBody(new): JsonBody<NewCredit>,
) -> Result<Recording, Problem> {
    let money = new.checked()?;
    let request = lease.record_id();
    let balance = probity_txn::on(&app.pool, "balance.credit")
        .run(async |tx| store::credit(tx, merchant, &new.credit_no, money, &request).await)
        .await?;
    answer(StatusCode::CREATED, &balance)
}
