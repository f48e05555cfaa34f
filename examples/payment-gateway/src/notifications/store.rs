//! The SQL of notifications: which rows have an end that their merchant was not told of.

use probity_txn::Tx;
use service_shell::{Database, Id, Pool, sql_saga_is};

/// A row that has its end, and whose merchant wants to know.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Untold {
    pub(crate) number: String,
    pub(crate) merchant_id: Id,
    pub(crate) mode: String,
    pub(crate) notify_url: String,
}

/// The most rows that one sweep takes.
const PAGE: i64 = 100;

/// Lists payments that have ended and whose merchant was not told.
pub(crate) async fn untold_payments(pool: &Pool) -> Result<Vec<Untold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT payment_no AS number, merchant_id, mode, notify_url FROM payments
          WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status = 'none'
            AND status NOT IN ('pending', 'processing')
          ORDER BY id LIMIT $1",
    )
    .bind(PAGE)
    .fetch_all(pool)
    .await
}

/// Lists refunds that have ended and whose merchant was not told.
pub(crate) async fn untold_refunds(pool: &Pool) -> Result<Vec<Untold>, sqlx::Error> {
    sqlx::query_as(
        "SELECT refund_no AS number, merchant_id, mode, notify_url FROM refunds
          WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status = 'none'
            AND status NOT IN ('pending', 'processing')
          ORDER BY id LIMIT $1",
    )
    .bind(PAGE)
    .fetch_all(pool)
    .await
}

/// Marks a row whose notification starts in the same transaction; false if another process did.
pub(crate) async fn mark_pending(tx: &mut Tx<'_, Database>, number: &str) -> Result<bool, sqlx::Error> {
    let mut marked = 0;
    for sql in [
        "UPDATE payments SET notify_status = 'pending' WHERE payment_no = $1 AND notify_status = 'none'",
        "UPDATE refunds SET notify_status = 'pending' WHERE refund_no = $1 AND notify_status = 'none'",
    ] {
        marked += sqlx::query(sql).bind(number).execute(&mut *tx).await?.rows_affected();
    }
    Ok(marked == 1)
}

/// Brings rows to what became of their notification. One that has `failed` waits for a person, and may be sent yet.
pub(crate) async fn close_told(pool: &Pool) -> Result<(), sqlx::Error> {
    for sql in [
        concat!(
            "UPDATE payments SET notify_status = 'sent'
              WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status IN ('pending', 'failed') AND ",
            sql_saga_is!("notification", "payments.payment_no", "completed")
        ),
        concat!(
            "UPDATE payments SET notify_status = 'failed'
              WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status = 'pending' AND ",
            sql_saga_is!("notification", "payments.payment_no", "stuck")
        ),
        concat!(
            "UPDATE refunds SET notify_status = 'sent'
              WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status IN ('pending', 'failed') AND ",
            sql_saga_is!("notification", "refunds.refund_no", "completed")
        ),
        concat!(
            "UPDATE refunds SET notify_status = 'failed'
              WHERE notify_url IS NOT NULL AND notify_status <> 'sent' AND notify_status = 'pending' AND ",
            sql_saga_is!("notification", "refunds.refund_no", "stuck")
        ),
    ] {
        sqlx::query(sql).execute(pool).await?;
    }
    Ok(())
}
