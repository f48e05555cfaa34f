//! The money of a withdrawal on its way: frozen, then released or spent, never both.
//!
//! Each function runs in the transaction of a saga's local step, which commits together with the record of that
//! step: each of them happens once, in the order of the saga, so none asks what an earlier attempt left behind.

use serde::{Deserialize, Serialize};
use service_shell::{Database, Id, Pool, sql_now, sql_saga_is};

use crate::steps::Payout;

/// A connection in its transaction.
pub(crate) type Connection = <Database as sqlx::Database>::Connection;

/// The outcome of a freeze. It is stored as the output of its step: never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "the money may not be frozen"]
pub(crate) enum Frozen {
    /// It is.
    Yes,
    /// There is not enough.
    NotEnough,
}

/// Returns true while the money of a withdrawal is frozen, which no statement of an operator can bring about.
pub(crate) async fn is_frozen(pool: &Pool, withdrawal: Id) -> Result<bool, sqlx::Error> {
    let held: Option<Id> = sqlx::query_scalar(
        "SELECT withdrawal_id FROM withdrawal_holds WHERE withdrawal_id = $1 AND state = 'frozen'",
    )
    .bind(withdrawal)
    .fetch_optional(pool)
    .await?;
    Ok(held.is_some())
}

/// Try: moves the total from available to frozen.
pub(crate) async fn freeze(tx: &mut Connection, payout: &Payout) -> Result<Frozen, sqlx::Error> {
    let moved = sqlx::query(
        "UPDATE balances SET available = available - $3, frozen = frozen + $3
          WHERE merchant_id = $1 AND currency = $2 AND available >= $3",
    )
    .bind(payout.merchant_id)
    .bind(&payout.currency)
    .bind(payout.total)
    .execute(&mut *tx)
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(Frozen::NotEnough);
    }
    sqlx::query("INSERT INTO withdrawal_holds (withdrawal_id, total, state) VALUES ($1, $2, 'frozen')")
        .bind(payout.withdrawal_id)
        .bind(payout.total)
        .execute(tx)
        .await?;
    Ok(Frozen::Yes)
}

/// Cancel: moves the total back. False if it is not frozen.
pub(crate) async fn release(tx: &mut Connection, payout: &Payout) -> Result<bool, sqlx::Error> {
    if !step(tx, payout.withdrawal_id, "released").await? {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE balances SET available = available + $3, frozen = frozen - $3
          WHERE merchant_id = $1 AND currency = $2",
    )
    .bind(payout.merchant_id)
    .bind(&payout.currency)
    .bind(payout.total)
    .execute(tx)
    .await?;
    Ok(true)
}

/// Confirm: the frozen money left; the bank's number is kept. False if nothing is frozen.
pub(crate) async fn spend(
    tx: &mut Connection,
    payout: &Payout,
    bank_reference: &str,
) -> Result<bool, sqlx::Error> {
    if !step(tx, payout.withdrawal_id, "spent").await? {
        return Ok(false);
    }
    sqlx::query("UPDATE balances SET frozen = frozen - $3 WHERE merchant_id = $1 AND currency = $2")
        .bind(payout.merchant_id)
        .bind(&payout.currency)
        .bind(payout.total)
        .execute(&mut *tx)
        .await?;
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

/// Moves a hold out of `frozen`; false if it was not there.
async fn step(tx: &mut Connection, withdrawal: Id, to: &'static str) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(concat!(
        "UPDATE withdrawal_holds SET state = $2, updated_at = ",
        sql_now!(),
        " WHERE withdrawal_id = $1 AND state = 'frozen'"
    ))
    .bind(withdrawal)
    .bind(to)
    .execute(tx)
    .await?;
    Ok(moved.rows_affected() == 1)
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
