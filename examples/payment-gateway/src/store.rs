//! The SQL of payments.
//!
//! Invariant: a payment becomes `success` only when its saga has completed, and `failed`, `cancelled` or `expired` only
//! when its saga has proven that everything is undone; no step decides it. Every change is one UPDATE guarded by the state it starts
//! from.

use probity_txn::{Tx, lock::Lockable};
use service_shell::{Database, Id, Pool, Schema, sql_ago, sql_now, sql_saga_is, text_enum};

use crate::auth::Merchant;
use crate::domain::{NewPayment, Payment, Status};

/// The tables of the gateway. Sagas and idempotency records bring their own.
pub const SCHEMA: Schema = Schema {
    service: "payment-gateway",
    sqlite: &[
        include_str!("../schema/sqlite.sql"),
        include_str!("../schema/sqlite-2-refunds.sql"),
        include_str!("../schema/sqlite-3-webhooks.sql"),
        include_str!("../schema/sqlite-4-notifications.sql"),
        include_str!("../schema/sqlite-5-follow.sql"),
        include_str!("../schema/sqlite-6-modes.sql"),
    ],
    postgres: &[
        include_str!("../schema/postgres.sql"),
        include_str!("../schema/postgres-2-refunds.sql"),
        include_str!("../schema/postgres-3-webhooks.sql"),
        include_str!("../schema/postgres-4-notifications.sql"),
        include_str!("../schema/postgres-5-follow.sql"),
        include_str!("../schema/postgres-6-modes.sql"),
    ],
};

/// The row of a payment, to be locked.
pub(crate) struct PaymentLock;

impl Lockable for PaymentLock {
    type Key = String;
    const TABLE: &'static str = "payments";
    const KEY: &'static str = "payment_no";
}

macro_rules! columns {
    () => {
        // What may still turn out well has not failed, whatever a step has noted.
        "payment_no, order_no, amount, currency, channel, payment_method, mode, description, status,
         CASE WHEN status IN ('pending', 'processing') THEN NULL ELSE failure_reason END AS failure_reason,
         channel_order_no, refunded_amount, notify_status, notify_url, peer_mode, created_at, updated_at"
    };
}

/// A payment with the cursor that continues after it.
#[derive(sqlx::FromRow)]
struct Listed {
    id: Id,
    #[sqlx(flatten)]
    payment: Payment,
}

/// The merchant that asks, and the idempotency record of its request.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) merchant: Merchant,
    pub(crate) record: String,
}

/// The answer to an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "only an inserted payment may start its saga"]
pub(crate) enum Inserted {
    /// It is there now; start its saga in the same transaction.
    New,
    /// This merchant used the order number, or an earlier attempt of this request was here.
    Exists,
}

/// Inserts a payment that is about to be processed: its saga starts in the same transaction, so nobody ever
/// sees it pending.
pub(crate) async fn insert(
    tx: &mut Tx<'_, Database>,
    payment_no: &str,
    origin: &Origin,
    new: &NewPayment,
) -> Result<Inserted, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO payments (id, payment_no, merchant_id, order_no, amount, currency, channel,
                               payment_method, mode, description, notify_url, peer_mode, status, idempotency_record)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $9, 'processing', $12) ON CONFLICT DO NOTHING",
    )
    .bind(Id::new())
    .bind(payment_no)
    .bind(origin.merchant.id)
    .bind(&new.order_no)
    .bind(new.money.amount())
    .bind(new.money.currency().code())
    .bind(&new.channel)
    .bind(&new.payment_method)
    .bind(&origin.merchant.mode)
    .bind(&new.description)
    .bind(&new.notify_url)
    .bind(&origin.record)
    .execute(&mut *tx)
    .await?;
    Ok(if inserted.rows_affected() == 1 { Inserted::New } else { Inserted::Exists })
}

/// The payment an idempotency record made, if it made one.
pub(crate) async fn find_by_record(pool: &Pool, record: &str) -> Result<Option<Payment>, sqlx::Error> {
    sqlx::query_as(concat!("SELECT ", columns!(), " FROM payments WHERE idempotency_record = $1"))
        .bind(record)
        .fetch_optional(pool)
        .await
}

/// A merchant's own payment, of the mode of its key.
pub(crate) async fn find<'e>(
    executor: impl sqlx::Executor<'e, Database = Database>,
    merchant: &Merchant,
    payment_no: &str,
) -> Result<Option<Payment>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM payments WHERE merchant_id = $1 AND mode = $2 AND payment_no = $3"
    ))
    .bind(merchant.id)
    .bind(&merchant.mode)
    .bind(payment_no)
    .fetch_optional(executor)
    .await
}

/// Which of a merchant's payments to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) order_no: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) currency: Option<String>,
    pub(crate) before: Option<Id>,
    pub(crate) limit: i64,
}

/// A merchant's payments, newest first, each with the cursor that continues after it.
pub(crate) async fn list(
    pool: &Pool,
    merchant: &Merchant,
    selection: &Selection,
) -> Result<Vec<(Id, Payment)>, sqlx::Error> {
    let rows: Vec<Listed> = sqlx::query_as(concat!(
        "SELECT id, ",
        columns!(),
        " FROM payments
          WHERE merchant_id = $1 AND mode = $2 AND ($3 IS NULL OR order_no = $3) AND ($4 IS NULL OR status = $4)
            AND ($5 IS NULL OR currency = $5) AND ($6 IS NULL OR id < $6)
          ORDER BY id DESC LIMIT $7"
    ))
    .bind(merchant.id)
    .bind(&merchant.mode)
    .bind(&selection.order_no)
    .bind(selection.status)
    .bind(&selection.currency)
    .bind(selection.before)
    .bind(selection.limit)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.payment)).collect())
}

/// Keeps the channel's number; false if the channel has told of another charge, or that this one was voided. The payment
/// is no success yet: until its saga has completed it may still be undone, and a merchant who was told of a success must
/// never see it fail.
pub(crate) async fn note_charge(
    pool: &Pool,
    payment_no: &str,
    channel_order_no: &str,
) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query(concat!(
        "UPDATE payments SET channel_order_no = $2, updated_at = ",
        sql_now!(),
        " WHERE payment_no = $1 AND status IN ('pending', 'processing')
            AND (channel_order_no IS NULL OR channel_order_no = $2)
            AND (voided_charge IS NULL OR voided_charge <> $2)"
    ))
    .bind(payment_no)
    .bind(channel_order_no)
    .execute(pool)
    .await?;
    Ok(noted.rows_affected() == 1)
}

/// Reads the channel's number of an open payment, once a webhook has proven that it was charged.
pub(crate) async fn noted_charge(pool: &Pool, payment_no: &str) -> Result<Option<String>, sqlx::Error> {
    let noted: Option<Option<String>> =
        sqlx::query_scalar("SELECT channel_order_no FROM payments WHERE payment_no = $1")
            .bind(payment_no)
            .fetch_optional(pool)
            .await?;
    Ok(noted.flatten())
}

/// Keeps the first reason why a payment is going to fail, or to be cancelled. It fails when its saga has undone everything, and until
/// then the reason is not shown.
pub(crate) async fn note_reason(pool: &Pool, payment_no: &str, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "UPDATE payments SET failure_reason = $2, updated_at = ",
        sql_now!(),
        " WHERE payment_no = $1 AND status IN ('pending', 'processing') AND failure_reason IS NULL"
    ))
    .bind(payment_no)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(())
}

text_enum! {
    /// The reason for which a payment was turned back although nothing failed; kept in `failure_reason`.
    pub enum Turned {
        /// Its merchant wanted it.
        Cancelled = "cancelled_by_merchant",
        /// It was not paid in time.
        Expired = "not_paid_in_time",
    }
}

/// Lists payments that are open for so many seconds by the database's clock, that were not charged as far as is known, and
/// whose saga goes forward or waits for help.
pub(crate) async fn open_for(pool: &Pool, seconds: i64) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(concat!(
        "SELECT payment_no FROM payments
          WHERE status IN ('pending', 'processing') AND channel_order_no IS NULL AND created_at < ",
        sql_ago!("$1"),
        // The saga says whether it was asked: the row is written before it, by a process that may die in between.
        " AND EXISTS (SELECT 1 FROM saga_instances
                       WHERE business_type = 'payment' AND business_id = payments.payment_no
                         AND cancel_reason IS NULL
                         AND saga_instances.status IN ('pending', 'in_progress', 'stuck')
                         AND COALESCE(resume_status, 'in_progress') IN ('pending', 'in_progress'))
          ORDER BY id LIMIT 100"
    ))
    .bind(seconds)
    .fetch_all(pool)
    .await
}

/// Brings payments to the end their sagas have reached: a completed saga is never undone, and an undone one
/// never goes on, so what a merchant is told from here on stays true.
pub(crate) async fn close_ended(pool: &Pool) -> Result<u64, sqlx::Error> {
    let succeeded = sqlx::query(concat!(
        "UPDATE payments SET status = 'success', failure_reason = NULL, updated_at = ",
        sql_now!(),
        " WHERE status IN ('pending', 'processing') AND channel_order_no IS NOT NULL
            AND ",
        sql_saga_is!("payment", "payments.payment_no", "completed")
    ))
    .execute(pool)
    .await?;
    let failed = sqlx::query(concat!(
        "UPDATE payments SET failure_reason = COALESCE(failure_reason, 'undone'),
                status = CASE failure_reason WHEN $1 THEN 'cancelled' WHEN $2 THEN 'expired' ELSE 'failed' END,
                updated_at = ",
        sql_now!(),
        " WHERE status IN ('pending', 'processing')
            AND ",
        sql_saga_is!("payment", "payments.payment_no", "compensated")
    ))
    .bind(Turned::Cancelled)
    .bind(Turned::Expired)
    .execute(pool)
    .await?;
    Ok(succeeded.rows_affected() + failed.rows_affected())
}
