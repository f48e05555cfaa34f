//! The money of a withdrawal on its way: frozen, then released or spent, never both.
//!
//! Each function may be called again after any interruption and then changes nothing more. A release leaves
//! its mark even when nothing was frozen, so a freeze that comes late is refused.

use service_shell::{Id, Pool, sql_now};

use super::Tx;
use crate::steps::Payout;

type Failed = probity_txn::Error<sqlx::Error>;

/// What became of a freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the money may not be frozen"]
pub(crate) enum Frozen {
    /// It is, or it was and has been spent since.
    Yes,
    /// There is not enough; the withdrawal has failed.
    NotEnough,
    /// It was released before the freeze arrived.
    Released,
}

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "money that left cannot be released"]
pub(crate) enum Released {
    /// It is available again.
    Yes,
    /// There was nothing to release, and now there never will be.
    NothingFrozen,
    /// It left.
    Spent,
}

/// Try: moves the total from available to frozen.
pub(crate) async fn freeze(pool: &Pool, payout: &Payout) -> Result<Frozen, Failed> {
    probity_txn::on(pool, "withdrawal.freeze")
        .run(async |tx| {
            let new = sqlx::query(
                "INSERT INTO withdrawal_holds (withdrawal_id, total, state) VALUES ($1, $2, 'frozen')
                 ON CONFLICT (withdrawal_id) DO NOTHING",
            )
            .bind(payout.withdrawal_id)
            .bind(payout.total)
            .execute(&mut *tx)
            .await?;
            if new.rows_affected() == 0 {
                let released = state(tx, payout.withdrawal_id).await?.as_deref() == Some("released");
                return Ok(if released { Frozen::Released } else { Frozen::Yes });
            }
            let moved = sqlx::query(
                "UPDATE balances SET available = available - $3, frozen = frozen + $3
                  WHERE merchant_id = $1 AND currency = $2 AND available >= $3",
            )
            .bind(payout.merchant_id)
            .bind(&payout.currency)
            .bind(payout.total)
            .execute(&mut *tx)
            .await?;
            if moved.rows_affected() == 1 {
                return Ok(Frozen::Yes);
            }
            let _taken = step(tx, payout.withdrawal_id, "released").await?;
            fail(tx, payout.withdrawal_id, "insufficient_balance").await?;
            Ok(Frozen::NotEnough)
        })
        .await
}

/// Cancel: moves the total back and fails the withdrawal.
pub(crate) async fn release(pool: &Pool, payout: &Payout) -> Result<Released, Failed> {
    probity_txn::on(pool, "withdrawal.release")
        .run(async |tx| {
            // Takes the row, or makes it: a freeze that is still on its way waits here and is then refused.
            sqlx::query(
                "INSERT INTO withdrawal_holds (withdrawal_id, total, state) VALUES ($1, $2, 'released')
                 ON CONFLICT (withdrawal_id) DO NOTHING",
            )
            .bind(payout.withdrawal_id)
            .bind(payout.total)
            .execute(&mut *tx)
            .await?;
            let released = step(tx, payout.withdrawal_id, "released").await?;
            if released {
                sqlx::query(
                    "UPDATE balances SET available = available + $3, frozen = frozen - $3
                      WHERE merchant_id = $1 AND currency = $2",
                )
                .bind(payout.merchant_id)
                .bind(&payout.currency)
                .bind(payout.total)
                .execute(&mut *tx)
                .await?;
            } else if state(tx, payout.withdrawal_id).await?.as_deref() == Some("spent") {
                return Ok(Released::Spent);
            }
            fail(tx, payout.withdrawal_id, "undone").await?;
            Ok(if released { Released::Yes } else { Released::NothingFrozen })
        })
        .await
}

/// Confirm: the frozen money left, and the withdrawal is completed. False if nothing was frozen.
pub(crate) async fn spend(pool: &Pool, payout: &Payout, bank_reference: &str) -> Result<bool, Failed> {
    probity_txn::on(pool, "withdrawal.spend")
        .run(async |tx| {
            if step(tx, payout.withdrawal_id, "spent").await? {
                sqlx::query("UPDATE balances SET frozen = frozen - $3 WHERE merchant_id = $1 AND currency = $2")
                    .bind(payout.merchant_id)
                    .bind(&payout.currency)
                    .bind(payout.total)
                    .execute(&mut *tx)
                    .await?;
            } else if state(tx, payout.withdrawal_id).await?.as_deref() != Some("spent") {
                return Ok(false);
            }
            sqlx::query(concat!(
                "UPDATE withdrawals SET status = 'completed', bank_reference = $2, reason = NULL, updated_at = ",
                sql_now!(),
                " WHERE id = $1 AND status = 'processing'"
            ))
            .bind(payout.withdrawal_id)
            .bind(bank_reference)
            .execute(&mut *tx)
            .await?;
            Ok(true)
        })
        .await
}

/// Why the bank refused; shown once the withdrawal has failed.
pub(crate) async fn note_reason(pool: &Pool, withdrawal: Id, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE withdrawals SET reason = $2 WHERE id = $1 AND status = 'processing'")
        .bind(withdrawal)
        .bind(reason)
        .execute(pool)
        .await
        .map(drop)
}

/// Whether the money of a withdrawal is frozen or spent: `Some(true)`; released: `Some(false)`.
pub(crate) async fn is_held(pool: &Pool, withdrawal: Id) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar("SELECT state <> 'released' FROM withdrawal_holds WHERE withdrawal_id = $1")
        .bind(withdrawal)
        .fetch_optional(pool)
        .await
}

/// Moves a hold out of `frozen`; false if it was not there.
async fn step(tx: &mut Tx<'_>, withdrawal: Id, to: &'static str) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(concat!(
        "UPDATE withdrawal_holds SET state = $2, updated_at = ",
        sql_now!(),
        " WHERE withdrawal_id = $1 AND state = 'frozen'"
    ))
    .bind(withdrawal)
    .bind(to)
    .execute(&mut *tx)
    .await?;
    Ok(moved.rows_affected() == 1)
}

async fn state(tx: &mut Tx<'_>, withdrawal: Id) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT state FROM withdrawal_holds WHERE withdrawal_id = $1")
        .bind(withdrawal)
        .fetch_optional(&mut *tx)
        .await
}

/// A reason that is known already, such as the bank's, stays.
async fn fail(tx: &mut Tx<'_>, withdrawal: Id, reason: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "UPDATE withdrawals SET status = 'failed', reason = COALESCE(reason, $2), updated_at = ",
        sql_now!(),
        " WHERE id = $1 AND status = 'processing'"
    ))
    .bind(withdrawal)
    .bind(reason)
    .execute(&mut *tx)
    .await
    .map(drop)
}
