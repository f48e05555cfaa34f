//! The SQL of webhooks.
//!
//! Invariant: a webhook and what it changes commit together, once per channel and event. It changes a payment only while
//! that is open, and never its status: it notes what the saga is going to learn.

use probity_txn::Tx;
use service_shell::{Database, Id, Pool, sql_now, sql_saga_is};

use crate::domain::Status;
use crate::refunds::domain::RefundStatus;
use crate::webhooks::event::{Event, Fate, News, PaymentNews, RefundNews};

/// The judgement on an event.
struct Judged {
    fate: Fate,
    detail: Option<String>,
}

impl Judged {
    fn plain(fate: Fate) -> Judged {
        Judged { fate, detail: None }
    }

    fn because(fate: Fate, detail: impl Into<String>) -> Judged {
        Judged { fate, detail: Some(detail.into()) }
    }
}

/// Stores a webhook and does what it says, unless its event was here before.
pub(crate) async fn receive(
    tx: &mut Tx<'_, Database>,
    channel: &str,
    event: &Event,
    raw: &[u8],
) -> Result<Fate, sqlx::Error> {
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
        return Ok(before);
    }
    settle(tx, id, event).await
}

/// Does what a stored webhook says, and keeps what became of it.
pub(crate) async fn settle(tx: &mut Tx<'_, Database>, id: Id, event: &Event) -> Result<Fate, sqlx::Error> {
    let Judged { fate, detail } = judge(tx, &event.news).await?;
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
    Ok(fate)
}

async fn judge(tx: &mut Tx<'_, Database>, news: &News) -> Result<Judged, sqlx::Error> {
    match news {
        News::Other => Ok(Judged::plain(Fate::Ignored)),
        News::Unreadable => Ok(Judged::plain(Fate::Unreadable)),
        News::Refunded(said) => {
            judge_refund(tx, said, RefundStatus::Failed, "the channel gave back what has failed here").await
        }
        News::RefundRefused(said) => {
            judge_refund(tx, said, RefundStatus::Success, "the channel refused what is a success here").await
        }
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
                (News::Voided(_), Status::Pending | Status::Processing) => voided(tx, said).await,
                (News::Voided(_), Status::Success) if said.channel_order_no == known => {
                    Ok(Judged::because(Fate::Contradicts, "the channel voided the charge of a success"))
                }
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
    let noted: Option<String> = sqlx::query_scalar(concat!(
        "UPDATE payments SET channel_order_no = $2, updated_at = ",
        sql_now!(),
        " WHERE payment_no = $1 AND status IN ('pending', 'processing')
            AND (channel_order_no IS NULL OR channel_order_no = $2)
            AND (voided_charge IS NULL OR voided_charge <> $2)
          RETURNING payment_no"
    ))
    .bind(&said.payment_no)
    .bind(channel_order_no)
    .fetch_optional(&mut *tx)
    .await?;
    if noted.is_some() {
        return Ok(Judged::plain(Fate::Applied));
    }
    let voided: Option<String> =
        sqlx::query_scalar("SELECT voided_charge FROM payments WHERE payment_no = $1")
            .bind(&said.payment_no)
            .fetch_one(&mut *tx)
            .await?;
    Ok(if voided.as_ref() == Some(channel_order_no) {
        Judged::because(Fate::Unchanged, "the charge was voided since")
    } else {
        Judged::because(Fate::Contradicts, "the payment has another charge")
    })
}

/// A voided charge is none. Once the saga has it from the channel itself and goes on to pay the order, only a person can
/// say what holds.
async fn voided(tx: &mut Tx<'_, Database>, said: &PaymentNews) -> Result<Judged, sqlx::Error> {
    let Some(channel_order_no) = &said.channel_order_no else {
        return Ok(Judged::because(Fate::Unreadable, "a voided charge without a channel_order_no"));
    };
    let going_on: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM saga_instances si JOIN saga_steps s ON s.saga_id = si.id
                         WHERE si.business_type = 'payment' AND si.business_id = $1
                           AND s.step_name = 'CallPaymentChannel' AND s.status = 'succeeded'
                           AND si.status NOT IN ('compensating', 'compensated')
                           AND COALESCE(si.resume_status, '') <> 'compensating')",
    )
    .bind(&said.payment_no)
    .fetch_one(&mut *tx)
    .await?;
    if going_on {
        return Ok(Judged::because(
            Fate::Contradicts,
            "the channel voided a charge whose order is being paid",
        ));
    }
    sqlx::query(concat!(
        "UPDATE payments SET voided_charge = $2, updated_at = ",
        sql_now!(),
        ", channel_order_no = CASE channel_order_no WHEN $2 THEN NULL ELSE channel_order_no END
          WHERE payment_no = $1"
    ))
    .bind(&said.payment_no)
    .bind(channel_order_no)
    .execute(&mut *tx)
    .await?;
    Ok(Judged::plain(Fate::Applied))
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
    Ok(Judged::plain(Fate::Applied))
}

/// A refund learns its end from its saga; a webhook about it is evidence for people, who must look when the refund has the
/// opposite end.
async fn judge_refund(
    tx: &mut Tx<'_, Database>,
    said: &RefundNews,
    opposite: RefundStatus,
    contradiction: &str,
) -> Result<Judged, sqlx::Error> {
    // Takes the row as a lock: its saga may end at the same time.
    let row: Option<(i64, String, RefundStatus)> = sqlx::query_as(
        "UPDATE refunds SET updated_at = updated_at WHERE refund_no = $1 RETURNING amount, currency, status",
    )
    .bind(&said.refund_no)
    .fetch_optional(&mut *tx)
    .await?;
    Ok(match row {
        None => Judged::plain(Fate::Parked),
        Some((amount, currency, _)) if (said.amount, &said.currency) != (amount, &currency) => {
            Judged::because(Fate::Mismatch, format!("the refund is of {amount} {currency}"))
        }
        Some((.., status)) if status == opposite => Judged::because(Fate::Contradicts, contradiction),
        Some(_) => Judged::plain(Fate::Unchanged),
    })
}

/// Lists parked webhooks whose payment or refund is here now.
pub(crate) async fn ready(pool: &Pool) -> Result<Vec<(Id, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, raw FROM payment_callbacks
          WHERE status = 'parked'
            AND (event_type LIKE 'payment.%'
                 AND EXISTS (SELECT 1 FROM payments WHERE payments.payment_no = payment_callbacks.subject)
              OR event_type LIKE 'refund.%'
                 AND EXISTS (SELECT 1 FROM refunds WHERE refunds.refund_no = payment_callbacks.subject))
          ORDER BY id LIMIT 100",
    )
    .fetch_all(pool)
    .await
}

/// Lists applied webhooks whose payment's saga is stuck and was not let go on for them: id, payment and event.
pub(crate) async fn to_follow(pool: &Pool) -> Result<Vec<(Id, String, String)>, sqlx::Error> {
    // A payment that has its end needs no saga that goes on.
    sqlx::query(concat!(
        "UPDATE payment_callbacks SET followed_at = ",
        sql_now!(),
        " WHERE status = 'applied' AND followed_at IS NULL
            AND EXISTS (SELECT 1 FROM payments WHERE payment_no = payment_callbacks.subject
                           AND payments.status NOT IN ('pending', 'processing'))"
    ))
    .execute(pool)
    .await?;
    sqlx::query_as(concat!(
        "SELECT id, subject, event_id FROM payment_callbacks
          WHERE status = 'applied' AND followed_at IS NULL AND ",
        sql_saga_is!("payment", "payment_callbacks.subject", "stuck"),
        " ORDER BY id LIMIT 100"
    ))
    .fetch_all(pool)
    .await
}

/// Keeps that the saga of a webhook's payment was let go on.
pub(crate) async fn followed(pool: &Pool, id: Id) -> Result<(), sqlx::Error> {
    let sql = concat!("UPDATE payment_callbacks SET followed_at = ", sql_now!(), " WHERE id = $1");
    sqlx::query(sql).bind(id).execute(pool).await?;
    Ok(())
}
