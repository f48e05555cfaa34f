//! Refunds: money given back of a charge, never more than was charged.

use probity_txn::{Error, Tx};
use serde_json::json;
use service_shell::{Database, Mode, Pool};

use crate::domain::Status;
use crate::events;
use crate::store::{lock_charge, refunded};
use crate::wire::RefundShown;

/// A request to give money back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundDemand {
    /// The caller's idempotency key.
    pub key: String,
    /// The caller's refund number.
    pub refund_no: String,
    /// The payment to give back from.
    pub payment_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217; must be the currency of the charge.
    pub currency: String,
}

/// One refund as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The request.
    pub demand: RefundDemand,
    /// `Refunded` or `Refused`.
    pub status: Status,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// The number of times this key arrived.
    pub attempts: i64,
}

/// The answer to a refund demand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a refusal or a reused key is not a refund"]
pub enum RefundAnswer {
    /// The row of this key, new or found.
    Refund(Refund),
    /// The key came before with another demand.
    KeyReused,
}

type Row = (String, String, String, i64, String, Status, Option<String>, i64);

fn refund(row: Row) -> Refund {
    let (key, refund_no, payment_no, amount, currency, status, reason, attempts) = row;
    let demand = RefundDemand { key, refund_no, payment_no, amount, currency };
    Refund { demand, status, reason, attempts }
}

/// Gives money back once per key.
///
/// # Cancel safety
/// Safe: it took effect completely or not at all; ask again with the same key.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn give_back(
    pool: &Pool,
    mode: Mode,
    demand: &RefundDemand,
) -> Result<RefundAnswer, Error<sqlx::Error>> {
    probity_txn::on(pool, "channel_refund").run(async |tx| answer(tx, mode, demand).await).await
}

async fn answer(
    tx: &mut Tx<'_, Database>,
    mode: Mode,
    demand: &RefundDemand,
) -> Result<RefundAnswer, sqlx::Error> {
    // The payment's lock first: the sum below must not change under us.
    let charge = lock_charge(tx, mode, &demand.payment_no).await?;
    let found: Option<Row> = sqlx::query_as(
        "UPDATE channel_refunds SET attempts = attempts + 1 WHERE idempotency_key = $1
         RETURNING idempotency_key, refund_no, payment_no, amount, currency, status, reason, attempts",
    )
    .bind(&demand.key)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(found) = found.map(refund) {
        return Ok(if found.demand == *demand {
            RefundAnswer::Refund(found)
        } else {
            RefundAnswer::KeyReused
        });
    }
    let before = refunded(tx, &demand.payment_no).await?;
    let refusal = match charge {
        None => Some("payment_not_charged"),
        Some(charge) if charge.demand.currency != demand.currency => Some("other_currency"),
        Some(charge) if demand.amount > charge.demand.amount - before => Some("more_than_charged"),
        Some(_) => None,
    };
    let status = if refusal.is_some() { Status::Refused } else { Status::Refunded };
    let inserted = sqlx::query(
        "INSERT INTO channel_refunds
                (idempotency_key, refund_no, payment_no, amount, currency, status, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (idempotency_key) DO NOTHING",
    )
    .bind(&demand.key)
    .bind(&demand.refund_no)
    .bind(&demand.payment_no)
    .bind(demand.amount)
    .bind(&demand.currency)
    .bind(status)
    .bind(refusal)
    .execute(&mut *tx)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(RefundAnswer::KeyReused);
    }
    let reason = refusal.map(str::to_owned);
    let refund = Refund { demand: demand.clone(), status, reason, attempts: 1 };
    events::record(tx, &format!("refund.{status}"), &json!(RefundShown::from(&refund))).await?;
    Ok(RefundAnswer::Refund(refund))
}

/// The refund under a number; one that gave money back decides over a refused one.
///
/// # Cancel safety
/// Safe: it only reads.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn find(pool: &Pool, mode: Mode, refund_no: &str) -> Result<Option<Refund>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT idempotency_key, refund_no, payment_no, amount, currency, status, reason, attempts
           FROM channel_refunds
          WHERE refund_no = $1 AND EXISTS (SELECT 1 FROM channel_payments
                         WHERE channel_payments.payment_no = channel_refunds.payment_no AND mode = $2)
          ORDER BY status, created_at LIMIT 1",
    )
    .bind(refund_no)
    .bind(mode)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(refund))
}
