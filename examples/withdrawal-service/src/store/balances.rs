//! The balances of merchants and what changes them. A reference changes a balance once.
//!
//! Invariant: an entry is inserted, or moved from one status to the next, before its balance is: of two at once the second
//! waits for the first and finds its status. Entry, balance and ledger row are one commit.

use http::StatusCode;
use service_shell::{Database, Id, Mode, Pool, Problem, TxError, sql_now};
use sqlx::Executor;

use super::Tx;
use crate::domain::{Balance, Entry, EntryKind, EntryStatus, Movement, NewEntry};

macro_rules! columns {
    () => {
        "reference, merchant_id, mode, currency, amount, status"
    };
}

/// Books a credit or a debit, or freezes. A repetition returns the entry as it is.
pub(crate) async fn book(tx: &mut Tx<'_>, kind: EntryKind, new: &NewEntry) -> Result<Entry, TxError> {
    let movement = kind.begin(new.amount);
    if !claim(&mut *tx, kind, new, movement.status).await? {
        return booked_before(tx, kind, new).await;
    }
    if kind == EntryKind::Credit {
        open(&mut *tx, new).await?;
    }
    if !shift(&mut *tx, new, movement).await? {
        let detail = "the available balance is smaller than the amount: nothing was booked";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "insufficient-balance", detail).into());
    }
    record(&mut *tx, kind, new, movement).await?;
    found(tx, kind, &new.reference).await
}

async fn booked_before(tx: &mut Tx<'_>, kind: EntryKind, new: &NewEntry) -> Result<Entry, TxError> {
    let entry = found(tx, kind, &new.reference).await?;
    if entry.body().is_some_and(|body| body != *new) {
        let detail = format!("this reference came before with another {kind}: use a new one");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "reference-reused", detail).into());
    }
    if entry.status == EntryStatus::Cancelled {
        let detail =
            format!("the {kind} is cancelled: it changes nothing, also when it comes after its cancel");
        return Err(Problem::conflict("reference-cancelled", detail).into());
    }
    Ok(entry)
}

/// Gives the money of a debit or of a freeze back, once. A cancel that comes first is remembered.
pub(crate) async fn cancel(tx: &mut Tx<'_>, kind: EntryKind, reference: &str) -> Result<Entry, TxError> {
    if let Some(entry) = take_back(&mut *tx, kind, reference).await? {
        if let Some(body) = entry.body() {
            apply(tx, kind, &body, kind.cancel(body.amount)).await?;
        }
        return Ok(entry);
    }
    let entry = found(tx, kind, reference).await?;
    if entry.status == EntryStatus::Cancelled {
        return Ok(entry);
    }
    let detail = "the freeze is confirmed: its money is spent and cannot be given back";
    Err(Problem::conflict("freeze-confirmed", detail).into())
}

/// Spends what a freeze holds, once.
pub(crate) async fn confirm(tx: &mut Tx<'_>, reference: &str) -> Result<Entry, TxError> {
    let kind = EntryKind::Freeze;
    if let Some(entry) = spend(&mut *tx, kind, reference).await? {
        if let Some(body) = entry.body() {
            apply(tx, kind, &body, kind.confirm(body.amount)).await?;
        }
        return Ok(entry);
    }
    match find(&mut *tx, kind, reference).await? {
        None => Err(Problem::not_found("freeze").into()),
        Some(entry) if entry.status == EntryStatus::Cancelled => {
            let detail = "the freeze is cancelled: its money was given back and cannot be spent";
            Err(Problem::conflict("reference-cancelled", detail).into())
        }
        Some(entry) => Ok(entry),
    }
}

/// Moves what an entry holds, which is there.
async fn apply(tx: &mut Tx<'_>, kind: EntryKind, body: &NewEntry, movement: Movement) -> Result<(), TxError> {
    if !shift(&mut *tx, body, movement).await? {
        return Err(
            Problem::internal(&format!("the balance of {kind} {} holds too little", body.reference)).into()
        );
    }
    Ok(record(&mut *tx, kind, body, movement).await?)
}

async fn found(tx: &mut Tx<'_>, kind: EntryKind, reference: &str) -> Result<Entry, TxError> {
    Ok(find(&mut *tx, kind, reference).await?.ok_or(sqlx::Error::RowNotFound)?)
}

/// Inserts an entry; false if its reference is known.
pub(super) async fn claim<'e>(
    executor: impl Executor<'e, Database = Database>,
    kind: EntryKind,
    new: &NewEntry,
    status: EntryStatus,
) -> Result<bool, sqlx::Error> {
    let claimed = sqlx::query(
        "INSERT INTO balance_entries (kind, reference, merchant_id, mode, currency, amount, status)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(kind)
    .bind(&new.reference)
    .bind(new.merchant_id)
    .bind(new.mode)
    .bind(&new.currency)
    .bind(new.amount)
    .bind(status)
    .execute(executor)
    .await?;
    Ok(claimed.rows_affected() == 1)
}

pub(super) async fn find<'e>(
    executor: impl Executor<'e, Database = Database>,
    kind: EntryKind,
    reference: &str,
) -> Result<Option<Entry>, sqlx::Error> {
    sqlx::query_as(concat!("SELECT ", columns!(), " FROM balance_entries WHERE kind = $1 AND reference = $2"))
        .bind(kind)
        .bind(reference)
        .fetch_optional(executor)
        .await
}

/// Cancels an entry that can be, or remembers the cancel of one that has not come; none if there is nothing to do.
pub(super) async fn take_back<'e>(
    executor: impl Executor<'e, Database = Database>,
    kind: EntryKind,
    reference: &str,
) -> Result<Option<Entry>, sqlx::Error> {
    sqlx::query_as(concat!(
        "INSERT INTO balance_entries (kind, reference, status) VALUES ($1, $2, 'cancelled')
         ON CONFLICT (kind, reference) DO UPDATE SET status = excluded.status, updated_at = ",
        sql_now!(),
        " WHERE balance_entries.status = $3 RETURNING ",
        columns!()
    ))
    .bind(kind)
    .bind(reference)
    .bind(kind.begin(0).status)
    .fetch_optional(executor)
    .await
}

/// Moves an entry from frozen to booked; none if it is not frozen.
pub(super) async fn spend<'e>(
    executor: impl Executor<'e, Database = Database>,
    kind: EntryKind,
    reference: &str,
) -> Result<Option<Entry>, sqlx::Error> {
    sqlx::query_as(concat!(
        "UPDATE balance_entries SET status = 'booked', updated_at = ",
        sql_now!(),
        " WHERE kind = $1 AND reference = $2 AND status = 'frozen' RETURNING ",
        columns!()
    ))
    .bind(kind)
    .bind(reference)
    .fetch_optional(executor)
    .await
}

/// Changes a balance; false if it would become negative.
pub(super) async fn shift<'e>(
    executor: impl Executor<'e, Database = Database>,
    of: &NewEntry,
    movement: Movement,
) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE balances SET available = available + $4, frozen = frozen + $5
          WHERE merchant_id = $1 AND mode = $2 AND currency = $3 AND available + $4 >= 0 AND frozen + $5 >= 0",
    )
    .bind(of.merchant_id)
    .bind(of.mode)
    .bind(&of.currency)
    .bind(movement.available)
    .bind(movement.frozen)
    .execute(executor)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Writes the row of the ledger.
pub(super) async fn record<'e>(
    executor: impl Executor<'e, Database = Database>,
    kind: EntryKind,
    of: &NewEntry,
    movement: Movement,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO balance_movements (kind, reference, status, merchant_id, mode, currency, available, frozen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(kind)
    .bind(&of.reference)
    .bind(movement.status)
    .bind(of.merchant_id)
    .bind(of.mode)
    .bind(&of.currency)
    .bind(movement.available)
    .bind(movement.frozen)
    .execute(executor)
    .await
    .map(drop)
}

/// Makes the row that a first credit needs.
async fn open<'e>(
    executor: impl Executor<'e, Database = Database>,
    new: &NewEntry,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO balances (merchant_id, mode, currency) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    )
    .bind(new.merchant_id)
    .bind(new.mode)
    .bind(&new.currency)
    .execute(executor)
    .await
    .map(drop)
}

pub(crate) async fn balances(pool: &Pool, merchant: Id, mode: Mode) -> Result<Vec<Balance>, sqlx::Error> {
    sqlx::query_as(
        "SELECT currency, available, frozen FROM balances WHERE merchant_id = $1 AND mode = $2 ORDER BY currency",
    )
    .bind(merchant)
    .bind(mode)
    .fetch_all(pool)
    .await
}
