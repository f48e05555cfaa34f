//! The SQL of refunds.
//!
//! Invariant: whoever sums the refunds of a payment holds the lock of its row, and a refund counts from its insert until
//! it has failed. So refunds at the same time never give back more than was paid.

use probity_txn::{Tx, lock::Locked};
use service_shell::{Database, Id, Pool, sql_now, sql_saga_is};

use crate::auth::Merchant;
use crate::domain::Payment;
use crate::refunds::domain::{NewRefund, Refund, RefundStatus};
use crate::store::{self, Origin, PaymentLock};

macro_rules! columns {
    () => {
        // What may still turn out well has not failed, whatever a step has noted.
        "refund_no, payment_no, amount, currency, reason, status,
         CASE WHEN status IN ('pending', 'processing') THEN NULL ELSE failure_reason END AS failure_reason,
         notify_status, created_at, updated_at"
    };
}

/// A connection in its transaction.
pub(crate) type Connection = <Database as sqlx::Database>::Connection;

/// Reads the refund that an idempotency record made, if it made one.
pub(crate) async fn find_by_record<'e>(
    executor: impl sqlx::Executor<'e, Database = Database>,
    record: &str,
) -> Result<Option<Refund>, sqlx::Error> {
    sqlx::query_as(concat!("SELECT ", columns!(), " FROM refunds WHERE idempotency_record = $1"))
        .bind(record)
        .fetch_optional(executor)
        .await
}

/// Locks a merchant's own payment and reads it under the lock; `None` if the merchant has no such payment.
pub(crate) async fn lock_payment<'b>(
    tx: &mut Tx<'b, Database>,
    merchant: &Merchant,
    payment_no: &str,
) -> Result<Option<(Locked<'b, PaymentLock>, Payment)>, sqlx::Error> {
    if store::find(&mut *tx, merchant, payment_no).await?.is_none() {
        return Ok(None);
    }
    let lock = tx.lock_one::<PaymentLock>(payment_no).await?;
    Ok(store::find(&mut *tx, merchant, payment_no).await?.map(|payment| (lock, payment)))
}

/// Sums what was given back of a payment or is on its way back.
pub(crate) async fn reserved<'b>(
    tx: &mut Tx<'b, Database>,
    payment: &Locked<'b, PaymentLock>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM refunds
          WHERE payment_no = $1 AND status <> 'failed'",
    )
    .bind(payment.key())
    .fetch_one(&mut *tx)
    .await
}

/// Inserts a refund that is about to be processed: its saga starts in the same transaction.
pub(crate) async fn insert<'b>(
    tx: &mut Tx<'b, Database>,
    payment: &Locked<'b, PaymentLock>,
    refund_no: &str,
    origin: &Origin,
    new: &NewRefund,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO refunds (id, refund_no, merchant_id, mode, payment_no, amount, currency, reason, status,
                              idempotency_record, notify_url)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'processing', $9,
                 (SELECT notify_url FROM payments WHERE payment_no = $5))",
    )
    .bind(Id::new())
    .bind(refund_no)
    .bind(origin.merchant.id)
    .bind(&origin.merchant.mode)
    .bind(payment.key())
    .bind(new.money.amount())
    .bind(new.money.currency().code())
    .bind(&new.reason)
    .bind(&origin.record)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Reads a merchant's own refund.
pub(crate) async fn find(
    pool: &Pool,
    merchant: &Merchant,
    refund_no: &str,
) -> Result<Option<Refund>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM refunds WHERE merchant_id = $1 AND mode = $2 AND refund_no = $3"
    ))
    .bind(merchant.id)
    .bind(&merchant.mode)
    .bind(refund_no)
    .fetch_optional(pool)
    .await
}

/// The refunds of a merchant to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) payment_no: Option<String>,
    pub(crate) status: Option<RefundStatus>,
    pub(crate) before: Option<Id>,
    pub(crate) limit: i64,
}

/// A refund with the cursor that continues after it.
#[derive(sqlx::FromRow)]
struct Listed {
    id: Id,
    #[sqlx(flatten)]
    refund: Refund,
}

/// Lists a merchant's refunds, newest first.
pub(crate) async fn list(
    pool: &Pool,
    merchant: &Merchant,
    selection: &Selection,
) -> Result<Vec<(Id, Refund)>, sqlx::Error> {
    let rows: Vec<Listed> = sqlx::query_as(concat!(
        "SELECT id, ",
        columns!(),
        " FROM refunds
          WHERE merchant_id = $1 AND mode = $2 AND ($3 IS NULL OR payment_no = $3)
            AND ($4 IS NULL OR status = $4) AND ($5 IS NULL OR id < $5)
          ORDER BY id DESC LIMIT $6"
    ))
    .bind(merchant.id)
    .bind(&merchant.mode)
    .bind(&selection.payment_no)
    .bind(selection.status)
    .bind(selection.before)
    .bind(selection.limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.refund)).collect())
}

/// Keeps the first reason why a refund is going to fail.
pub(crate) async fn note_reason(pool: &Pool, refund_no: &str, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE refunds SET failure_reason = $2
          WHERE refund_no = $1 AND status IN ('pending', 'processing') AND failure_reason IS NULL",
    )
    .bind(refund_no)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

/// Counts up what was given back of a payment, and answers whether that is all of it; `None` if it would be more than
/// was paid. Runs in the transaction of a local step, so it happens once.
pub(crate) async fn book(
    tx: &mut Connection,
    payment_no: &str,
    amount: i64,
) -> Result<Option<bool>, sqlx::Error> {
    sqlx::query_scalar(concat!(
        "UPDATE payments SET refunded_amount = refunded_amount + $2, updated_at = ",
        sql_now!(),
        " WHERE payment_no = $1 AND refunded_amount + $2 <= amount RETURNING refunded_amount = amount"
    ))
    .bind(payment_no)
    .bind(amount)
    .fetch_optional(tx)
    .await
}

/// Brings refunds to the end that their sagas have reached.
pub(crate) async fn close_ended(pool: &Pool) -> Result<u64, sqlx::Error> {
    let succeeded = sqlx::query(concat!(
        "UPDATE refunds SET status = 'success', failure_reason = NULL, updated_at = ",
        sql_now!(),
        " WHERE status IN ('pending', 'processing') AND ",
        sql_saga_is!("refund", "refunds.refund_no", "completed")
    ))
    .execute(pool)
    .await?;
    let failed = sqlx::query(concat!(
        "UPDATE refunds SET status = 'failed', failure_reason = COALESCE(failure_reason, 'undone'), updated_at = ",
        sql_now!(),
        " WHERE status IN ('pending', 'processing') AND ",
        sql_saga_is!("refund", "refunds.refund_no", "compensated")
    ))
    .execute(pool)
    .await?;
    Ok(succeeded.rows_affected() + failed.rows_affected())
}
