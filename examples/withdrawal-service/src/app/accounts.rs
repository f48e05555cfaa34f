//! Bank accounts and balances.

use axum::extract::{Path, State};
use http::StatusCode;
use probity_idempotency::{Lease, Recording};
use service_shell::{Id, Json, MerchantId, Problem};

use super::{App, answer};
use crate::domain::{Balance, Balances, BankAccount, BankAccounts, NewBankAccount, NewCredit};
use crate::store;

/// Adds an account; the first one is the default.
#[utoipa::path(post, path = "/api/v1/bank-accounts", params(MerchantId), responses(
    (status = 201, description = "The account.", body = BankAccount),
))]
pub(super) async fn create(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    lease: Lease,
    Json(new): Json<NewBankAccount>,
) -> Result<Recording, Problem> {
    let new = new.checked()?;
    let request = lease.record_id();
    let account = probity_txn::on(&app.pool, "bank-account.create")
        .run(async |tx| store::add_account(tx, merchant, &new, &request).await)
        .await?;
    answer(StatusCode::CREATED, &account)
}

/// Makes an account the default, and every other one not.
#[utoipa::path(post, path = "/api/v1/bank-accounts/{id}/set-default", params(MerchantId, ("id" = Id, Path)), responses(
    (status = 200, description = "The account.", body = BankAccount),
    (status = 404, description = "The merchant has no such account."),
))]
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

/// Lists all accounts of a merchant; exactly one is the default once there is one.
#[utoipa::path(get, path = "/api/v1/bank-accounts", params(MerchantId), responses(
    (status = 200, description = "The accounts.", body = BankAccounts),
))]
pub(super) async fn list(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
) -> Result<Json<BankAccounts>, Problem> {
    Ok(Json(BankAccounts { bank_accounts: store::accounts(&app.pool, merchant).await? }))
}

/// Shows what a merchant owns: available and frozen, per currency.
#[utoipa::path(get, path = "/api/v1/balances", params(MerchantId), responses(
    (status = 200, description = "The balances.", body = Balances),
))]
pub(super) async fn balances(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
) -> Result<Json<Balances>, Problem> {
    Ok(Json(Balances { balances: store::balances(&app.pool, merchant).await? }))
}

/// Books a settlement to a merchant's balance; a `credit_no` is booked once.
#[utoipa::path(post, path = "/internal/v1/credits", params(MerchantId), responses(
    (status = 201, description = "The balance.", body = Balance),
))]
pub(super) async fn credit(
    State(app): State<App>,
    MerchantId(merchant): MerchantId,
    lease: Lease,
    Json(new): Json<NewCredit>,
) -> Result<Recording, Problem> {
    let money = new.checked()?;
    let request = lease.record_id();
    let balance = probity_txn::on(&app.pool, "balance.credit")
        .run(async |tx| store::credit(tx, merchant, &new.credit_no, money, &request).await)
        .await?;
    answer(StatusCode::CREATED, &balance)
}
