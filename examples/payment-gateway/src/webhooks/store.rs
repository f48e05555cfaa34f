//! The SQL of webhooks.
//!
//! Invariant: a webhook and what it changes commit together, once per channel and event. It changes a payment only while
//! that is open, and never its status: it notes what the saga is going to learn.

use probity_txn::Tx;
use service_shell::{Database, Id, Pool, sql_now};

use crate::domain::Status;
use crate::webhooks::event::{Event, Fate, News, PaymentNews, RefundNews};

/// The answer to a webhook that was stored.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) fate: Fate,
    /// The payment whose saga may go on now.
    pub(crate) woken: Option<String>,
}

/// The judgement on an event.
struct Judged {
    fate: Fate,
    detail: Option<String>,
    woken: Option<String>,
}

impl Judged {
    fn plain(fate: Fate) -> Judged {
        Judged { fate, detail: None, woken: None }
    }

    fn because(fate: Fate, detail: impl Into<String>) -> Judged {
        Judged { detail: Some(detail.into()), ..Judged::plain(fate) }
    }
}

/// Stores a webhook and does what it says, unless its event was here before.
pub(crate) async fn receive(
    tx: &mut Tx<'_, Database>,
    channel: &str,
    event: &Event,
    raw: &[u8],
) -> Result<Received, sqlx::Error> {
    let (id, before, deliveries): (Id, Fate, i64) = sqlx::query_as(
        "INSERT INTO payment_callbacks (id, channel, event_id, event_type, subject, raw, status)
         VALUES ($1, $2, $3, $4, $5, $6, 'parked')
         ON CONFLICT (channel, event_id) DO UPDATE SET deliveries = payment_callbacks.deliveries + 1
         RETURNING id, status, deliveries",
    )
    .bind(Id::new())
    .bind(channel)
    .bind(&event.id)
    .bind(&event.kind)
    .bind(event.subject())
    .bind(raw)
    .fetch_one(&mut *tx)
    .await?;
    if deliveries > 1 {
        return Ok(Received { fate: before, woken: None });
    }
    settle(tx, id, event).await
}

/// Does what a stored webhook says, and keeps what became of it.
pub(crate) async fn settle(
    tx: &mut Tx<'_, Database>,
    id: Id,
    event: &Event,
) -> Result<Received, sqlx::Error> {
    let Judged { fate, detail, woken } = judge(tx, &event.news).await?;
    if fate != Fate::Parked {
        sqlx::query(concat!(
            "UPDATE payment_callbacks SET status = $2, detail = $3, processed_at = ",
            sql_now!(),
            " WHERE id = $1"
        ))
        .bind(id)
        .bind(fate)
        .bind(detail)
        .execute(&mut *tx)
        .await?;
    }
    Ok(Received { fate, woken })
}

async fn judge(tx: &mut Tx<'_, Database>, news: &News) -> Result<Judged, sqlx::Error> {
    match news {
        News::Other => Ok(Judged::plain(Fate::Ignored)),
        News::Unreadable => Ok(Judged::plain(Fate::Unreadable)),
        News::Refund(news) => judge_refund(tx, news).await,
        News::Charged(said) | News::Refused(said) | News::Voided(said) => {
            // Takes the row as a lock: its saga may end at the same time.
            let row: Option<(i64, String, Status, Option<String>)> = sqlx::query_as(
                "UPDATE payments SET updated_at = updated_at WHERE payment_no = $1
                 RETURNING amount, currency, status, channel_order_no",
            )
            .bind(&said.payment_no)
            .fetch_optional(&mut *tx)
            .await?;
            let Some((amount, currency, status, known)) = row else { return Ok(Judged::plain(Fate::Parked)) };
            if (said.amount, &said.currency) != (amount, &currency) {
                return Ok(Judged::because(Fate::Mismatch, format!("the payment is of {amount} {currency}")));
            }
            match (news, status) {
                (News::Charged(_), Status::Pending | Status::Processing) => charged(tx, said).await,
                (News::Charged(_), Status::Success) if said.channel_order_no != known => {
                    Ok(Judged::because(Fate::Contradicts, "the payment is a success by another charge"))
                }
                (News::Refused(_), Status::Pending | Status::Processing) => refused(tx, said).await,
                (_, status) => Ok(Judged::because(Fate::Unchanged, format!("the payment is {status}"))),
            }
        }
    }
}

/// The number of the charge is what proves it to the saga.
async fn charged(tx: &mut Tx<'_, Database>, said: &PaymentNews) -> Result<Judged, sqlx::Error> {
    let Some(channel_order_no) = &said.channel_order_no else {
        return Ok(Judged::because(Fate::Unreadable, "a charge without a channel_order_no"));
    };
    let noted = sqlx::query(concat!(
        "UPDATE payments SET channel_order_no = $2, updated_at = ",
        sql_now!(),
        " WHERE payment_no = $1 AND status IN ('pending', 'processing')
            AND (channel_order_no IS NULL OR channel_order_no = $2)"
    ))
    .bind(&said.payment_no)
    .bind(channel_order_no)
    .execute(&mut *tx)
    .await?;
    if noted.rows_affected() == 0 {
        return Ok(Judged::because(Fate::Contradicts, "the payment has another charge"));
    }
    Ok(Judged { woken: Some(said.payment_no.clone()), ..Judged::plain(Fate::Applied) })
}

async fn refused(tx: &mut Tx<'_, Database>, said: &PaymentNews) -> Result<Judged, sqlx::Error> {
    sqlx::query(
        "UPDATE payments SET failure_reason = $2
          WHERE payment_no = $1 AND status IN ('pending', 'processing') AND failure_reason IS NULL",
    )
    .bind(&said.payment_no)
    .bind(said.reason.as_deref().unwrap_or("refused"))
    .execute(&mut *tx)
    .await?;
    Ok(Judged { woken: Some(said.payment_no.clone()), ..Judged::plain(Fate::Applied) })
}

/// A refund learns its end from its saga; a webhook about it is evidence for people.
async fn judge_refund(tx: &mut Tx<'_, Database>, said: &RefundNews) -> Result<Judged, sqlx::Error> {
    let row: Option<(i64, String)> =
        sqlx::query_as("SELECT amount, currency FROM refunds WHERE refund_no = $1")
            .bind(&said.refund_no)
            .fetch_optional(&mut *tx)
            .await?;
    Ok(match row {
        None => Judged::plain(Fate::Parked),
        Some((amount, currency)) if (said.amount, &said.currency) != (amount, &currency) => {
            Judged::because(Fate::Mismatch, format!("the refund is of {amount} {currency}"))
        }
        Some(_) => Judged::plain(Fate::Unchanged),
    })
}

/// Lists parked webhooks whose payment or refund is here now.
pub(crate) async fn ready(pool: &Pool) -> Result<Vec<(Id, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, raw FROM payment_callbacks
          WHERE status = 'parked'
            AND (EXISTS (SELECT 1 FROM payments WHERE payments.payment_no = payment_callbacks.subject)
              OR EXISTS (SELECT 1 FROM refunds WHERE refunds.refund_no = payment_callbacks.subject))
          LIMIT 100",
    )
    .fetch_all(pool)
    .await
}
