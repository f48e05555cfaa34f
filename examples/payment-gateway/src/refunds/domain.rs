//! The rules of a refund, without a database: what a merchant may ask for, and what they are shown.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Money, Problem, text_enum};
use utoipa::ToSchema;

use crate::domain::{NotifyStatus, Payment, Status, text};

text_enum! {
    /// The state of a refund as merchants see it.
    pub enum RefundStatus {
        /// Known, not started.
        Pending = "pending",
        /// Its saga runs, or waits for a neighbour or an operator.
        Processing = "processing",
        /// The money was given back, once, and the order knows it.
        Success = "success",
        /// The channel refused; no money was given back.
        Failed = "failed",
    }
}

/// `POST /api/v1/refunds`, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefundBody {
    /// The payment to give back from.
    pub payment_no: String,
    /// Minor units; a part of the payment, or all of it.
    pub amount: i64,
    /// ISO 4217; must be the payment's.
    pub currency: String,
    /// The merchant's own note.
    pub reason: Option<String>,
}

/// A refund that may be asked for: every rule was checked that needs no database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefund {
    /// The payment to give back from.
    pub payment_no: String,
    /// The amount to give back.
    pub money: Money,
    /// The merchant's own note.
    pub reason: Option<String>,
}

impl TryFrom<RefundBody> for NewRefund {
    type Error = Problem;

    fn try_from(body: RefundBody) -> Result<NewRefund, Problem> {
        let currency: Currency =
            body.currency.parse().map_err(|error| Problem::invalid("currency", error))?;
        Ok(NewRefund {
            payment_no: text("payment_no", body.payment_no, 64)?,
            money: Money::new(body.amount, currency).map_err(|error| Problem::invalid("amount", error))?,
            reason: body.reason.map(|given| text("reason", given, 200)).transpose()?,
        })
    }
}

impl NewRefund {
    /// Checks that this may be given back of a payment of which `reserved` is given back or on its way back.
    ///
    /// # Errors
    /// [`Problem`] says what to do instead.
    pub fn check(&self, payment: &Payment, reserved: i64) -> Result<(), Problem> {
        if payment.status != Status::Success {
            let remedy = match payment.status {
                Status::Pending | Status::Processing => {
                    "send the refund again, with this key, once it is a success"
                }
                _ => "no money of it is held, so nothing can be given back",
            };
            let state = payment.status.as_str();
            return Err(Problem::conflict(
                "payment-not-refundable",
                format!("the payment is {state}: {remedy}"),
            )
            .with("state", state));
        }
        if self.money.currency().code() != payment.currency {
            return Err(Problem::invalid(
                "currency",
                format!("must be the payment's, which is {}", payment.currency),
            ));
        }
        let left = payment.amount - reserved;
        if self.money.amount() > left {
            return Err(Problem::conflict(
                "refund-exceeds-payment",
                format!("of this payment {left} minor units can still be given back: ask for at most that"),
            )
            .with("refundable", left));
        }
        Ok(())
    }
}

/// A refund as it is stored and shown to its merchant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, ToSchema)]
pub struct Refund {
    /// Our number for it: unique and unguessable.
    pub refund_no: String,
    /// The payment it gives back from.
    pub payment_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The merchant's own note.
    pub reason: Option<String>,
    /// The status.
    pub status: RefundStatus,
    /// The reason of a failure.
    pub failure_reason: Option<String>,
    /// The state of the notification of its end.
    pub notify_status: NotifyStatus,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// By the database's clock.
    pub updated_at: DateTime<Utc>,
}
