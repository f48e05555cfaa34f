//! The money of a withdrawal on its way: frozen, then given back or spent, never both.
//!
//! Each function runs in the transaction of a saga's local step, which commits together with the record of that
//! step. Each of them may come again and changes nothing then; a cancel before its try is remembered.

use serde::{Deserialize, Serialize};
use service_shell::{Database, Id, Pool, sql_now, sql_saga_is};

use super::balances::{claim, find, record, shift, spend, take_back};
use crate::domain::{EntryKind, EntryStatus, Movement, NewEntry, Payout};

const KIND: EntryKind = EntryKind::Withdrawal;

/// A connection in its transaction.
pub(crate) type Connection = <Database as sqlx::Database>::Connection;

/// The outcome of a freeze. It is stored as the output of its step: never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "the money may not be frozen"]
pub(crate) enum Frozen {
    /// It is.
    Yes,
    /// There is not enough, or the freeze was cancelled before it came.
    NotEnough,
}

/// Returns true while the money of a withdrawal is frozen, which no statement of an operator can bring about.
pub(crate) async fn is_frozen(pool: &Pool, payout: &Payout) -> Result<bool, sqlx::Error> {
    let entry = find(pool, KIND, &payout.withdrawal_no).await?;
    Ok(entry.is_some_and(|entry| entry.status == EntryStatus::Frozen))
}

/// Try: moves the total from available to frozen.
pub(crate) async fn freeze(tx: &mut Connection, payout: &Payout) -> Result<Frozen, sqlx::Error> {
    let (entry, movement) = (payout.entry(), KIND.begin(payout.total));
    if !claim(&mut *tx, KIND, &entry, movement.status).await? {
        let before = find(&mut *tx, KIND, &payout.withdrawal_no).await?;
        let cancelled = before.is_some_and(|before| before.status == EntryStatus::Cancelled);
        return Ok(if cancelled { Frozen::NotEnough } else { Frozen::Yes });
    }
    if !shift(&mut *tx, &entry, movement).await? {
        take_back(&mut *tx, KIND, &payout.withdrawal_no).await?;
        return Ok(Frozen::NotEnough);
    }
    record(tx, KIND, &entry, movement).await?;
    Ok(Frozen::Yes)
}

/// Cancel: moves the total back. False if it is spent.
pub(crate) async fn release(tx: &mut Connection, payout: &Payout) -> Result<bool, sqlx::Error> {
    let Some(entry) = take_back(&mut *tx, KIND, &payout.withdrawal_no).await? else {
        let before = find(tx, KIND, &payout.withdrawal_no).await?;
        return Ok(before.is_some_and(|before| before.status == EntryStatus::Cancelled));
    };
    match entry.body() {
        Some(body) => moved(tx, &body, KIND.cancel(body.amount)).await,
        None => Ok(true),
    }
}

/// Confirm: the frozen money left; the bank's number is kept. False if nothing is frozen.
pub(crate) async fn deduct(
    tx: &mut Connection,
    payout: &Payout,
    bank_reference: &str,
) -> Result<bool, sqlx::Error> {
    let Some(entry) = spend(&mut *tx, KIND, &payout.withdrawal_no).await? else {
        let before = find(tx, KIND, &payout.withdrawal_no).await?;
        return Ok(before.is_some_and(|before| before.status == EntryStatus::Booked));
    };
    let Some(body) = entry.body() else { return Ok(false) };
    if !moved(&mut *tx, &body, KIND.confirm(body.amount)).await? {
        return Ok(false);
    }
    sqlx::query(concat!(
        "UPDATE withdrawals SET bank_reference = $2, updated_at = ",
        sql_now!(),
        " WHERE id = $1 AND status = 'processing'"
    ))
    .bind(payout.withdrawal_id)
    .bind(bank_reference)
    .execute(tx)
    .await?;
    Ok(true)
}

async fn moved(tx: &mut Connection, body: &NewEntry, movement: Movement) -> Result<bool, sqlx::Error> {
    let held = shift(&mut *tx, body, movement).await?;
    if held {
        record(tx, KIND, body, movement).await?;
    }
    Ok(held)
}

/// Keeps the first reason why a withdrawal is going to fail. It fails when its saga has undone everything, and until
/// then the reason is not shown.
pub(crate) async fn note_reason(pool: &Pool, withdrawal: Id, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE withdrawals SET reason = COALESCE(reason, $2) WHERE id = $1 AND status = 'processing'",
    )
    .bind(withdrawal)
    .bind(reason)
    .execute(pool)
    .await
    .map(drop)
}

/// Brings withdrawals to the end their sagas have reached: a completed saga is never undone, and an undone one never
/// goes on, so what a merchant is told from here on stays true.
pub(crate) async fn close_ended(pool: &Pool) -> Result<u64, sqlx::Error> {
    let completed = sqlx::query(concat!(
        "UPDATE withdrawals SET status = 'completed', reason = NULL, updated_at = ",
        sql_now!(),
        " WHERE status = 'processing'
            AND ",
        sql_saga_is!("withdrawal", "withdrawals.withdrawal_no", "completed")
    ))
    .execute(pool)
    .await?;
    let failed = sqlx::query(concat!(
        "UPDATE withdrawals SET status = 'failed', reason = COALESCE(reason, 'undone'), updated_at = ",
        sql_now!(),
        " WHERE status = 'processing'
            AND ",
        sql_saga_is!("withdrawal", "withdrawals.withdrawal_no", "compensated")
    ))
    .execute(pool)
    .await?;
    Ok(completed.rows_affected() + failed.rows_affected())
}
