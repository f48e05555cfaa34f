//! Bank accounts.

use axum::extract::{Path, State};
use http::StatusCode;
use probity_idempotency::{Lease, Recording};
use service_shell::{Id, Json, Problem, World};

use super::{App, answer};
use crate::domain::{BankAccount, BankAccounts, NewBankAccount};
use crate::store;

/// Adds an account; the first one is the default.
#[utoipa::path(post, path = "/api/v1/bank-accounts", params(World), responses(
    (status = 201, description = "The account.", body = BankAccount),
))]
pub(super) async fn create(
    State(app): State<App>,
    world: World,
    lease: Lease,
    Json(new): Json<NewBankAccount>,
) -> Result<Recording, Problem> {
    let new = new.checked()?;
    let request = lease.record_id();
    let account = probity_txn::on(&app.pool, "bank-account.create")
        .run(async |tx| store::add_account(tx, world, &new, &request).await)
        .await?;
    answer(StatusCode::CREATED, &account)
}

/// Makes an account the default, and every other one not.
#[utoipa::path(post, path = "/api/v1/bank-accounts/{id}/set-default", params(World, ("id" = Id, Path)), responses(
    (status = 200, description = "The account.", body = BankAccount),
    (status = 404, description = "The merchant has no such account."),
))]
pub(super) async fn set_default(
    State(app): State<App>,
    world: World,
    Path(id): Path<Id>,
) -> Result<Recording, Problem> {
    let account = probity_txn::on(&app.pool, "bank-account.set-default")
        .run(async |tx| store::set_default(tx, world, id).await)
        .await?;
    answer(StatusCode::OK, &account)
}

/// Lists all accounts of a merchant; exactly one is the default once there is one.
#[utoipa::path(get, path = "/api/v1/bank-accounts", params(World), responses(
    (status = 200, description = "The accounts.", body = BankAccounts),
))]
pub(super) async fn list(State(app): State<App>, world: World) -> Result<Json<BankAccounts>, Problem> {
    Ok(Json(BankAccounts { bank_accounts: store::accounts(&app.pool, world).await? }))
}
