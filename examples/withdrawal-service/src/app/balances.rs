//! The routes by which other services change the balances of merchants. A reference does it once, so no route needs a key.

use axum::extract::{Path, Query, State};
use http::StatusCode;
use service_shell::{Json, Problem};

use super::App;
use crate::domain::{Balances, Entry, EntryKind, NewEntry, Whose, checked_reference};
use crate::store;

type Booked = Result<(StatusCode, Json<Entry>), Problem>;

/// Adds money, such as a settled payment.
///
/// The same reference gets the same answer, and the money is added once.
#[utoipa::path(post, path = "/api/v1/balances/credits", responses(
    (status = 201, description = "The entry.", body = Entry),
    (status = 422, description = "The reference came with another body, or a field cannot be right."),
))]
pub(super) async fn credit(State(app): State<App>, Json(new): Json<NewEntry>) -> Booked {
    book(&app, EntryKind::Credit, new).await
}

/// Takes money, such as a refund.
///
/// The same reference gets the same answer, and the money is taken once.
#[utoipa::path(post, path = "/api/v1/balances/debits", responses(
    (status = 201, description = "The entry.", body = Entry),
    (status = 409, description = "It is cancelled, maybe before it came: `reference-cancelled`. Nothing is taken."),
    (status = 422, description = "Too little is available (`insufficient-balance`), the reference came with another body, \
                                  or a field cannot be right."),
))]
pub(super) async fn debit(State(app): State<App>, Json(new): Json<NewEntry>) -> Booked {
    book(&app, EntryKind::Debit, new).await
}

/// Gives a debit back, once. A cancel that comes before its debit is remembered: the debit takes nothing then.
#[utoipa::path(post, path = "/api/v1/balances/debits/{reference}/cancel", responses(
    (status = 200, description = "The entry, `cancelled`.", body = Entry),
))]
pub(super) async fn cancel_debit(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Json<Entry>, Problem> {
    cancel(&app, EntryKind::Debit, &reference).await
}

/// Try: freezes money until it is confirmed or cancelled.
#[utoipa::path(post, path = "/api/v1/balances/freezes", responses(
    (status = 201, description = "The entry.", body = Entry),
    (status = 409, description = "It is cancelled, maybe before it came: `reference-cancelled`. Nothing is frozen."),
    (status = 422, description = "Too little is available (`insufficient-balance`), the reference came with another body, \
                                  or a field cannot be right."),
))]
pub(super) async fn freeze(State(app): State<App>, Json(new): Json<NewEntry>) -> Booked {
    book(&app, EntryKind::Freeze, new).await
}

/// Confirm: spends frozen money, once.
#[utoipa::path(post, path = "/api/v1/balances/freezes/{reference}/confirm", responses(
    (status = 200, description = "The entry, `booked`.", body = Entry),
    (status = 404, description = "There is no such freeze."),
    (status = 409, description = "The freeze is cancelled."),
))]
pub(super) async fn confirm_freeze(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Json<Entry>, Problem> {
    checked_reference(&reference)?;
    let confirmed = probity_txn::on(&app.pool, "balance.confirm");
    Ok(Json(confirmed.run(async |tx| store::confirm(tx, &reference).await).await?))
}

/// Cancel: gives frozen money back, once. A cancel that comes before its freeze is remembered.
#[utoipa::path(post, path = "/api/v1/balances/freezes/{reference}/cancel", responses(
    (status = 200, description = "The entry, `cancelled`.", body = Entry),
    (status = 409, description = "The freeze is confirmed."),
))]
pub(super) async fn cancel_freeze(
    State(app): State<App>,
    Path(reference): Path<String>,
) -> Result<Json<Entry>, Problem> {
    cancel(&app, EntryKind::Freeze, &reference).await
}

/// Shows what a merchant owns in a mode: available and frozen, per currency.
#[utoipa::path(get, path = "/api/v1/balances", params(Whose), responses(
    (status = 200, description = "The balances.", body = Balances),
))]
pub(super) async fn list(
    State(app): State<App>,
    Query(Whose { merchant_id, mode }): Query<Whose>,
) -> Result<Json<Balances>, Problem> {
    Ok(Json(Balances { balances: store::balances(&app.pool, merchant_id, mode).await? }))
}

async fn book(app: &App, kind: EntryKind, new: NewEntry) -> Booked {
    let new = new.checked()?;
    let entry =
        probity_txn::on(&app.pool, "balance.book").run(async |tx| store::book(tx, kind, &new).await).await?;
    Ok((StatusCode::CREATED, Json(entry)))
}

async fn cancel(app: &App, kind: EntryKind, reference: &str) -> Result<Json<Entry>, Problem> {
    checked_reference(reference)?;
    let cancelled = probity_txn::on(&app.pool, "balance.cancel");
    Ok(Json(cancelled.run(async |tx| store::cancel(tx, kind, reference).await).await?))
}
