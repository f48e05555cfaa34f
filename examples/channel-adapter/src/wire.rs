//! The formats on the wire: bodies in, checked into demands; ledger rows and refusals out.

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use service_shell::{Currency, Money, Problem};
use utoipa::ToSchema;

use crate::book::{Book, PAYMENTS};
use crate::domain::{Behaviour, Demand, Entry, Status};
use crate::refund::{Refund, RefundDemand};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaymentBody {
    pub(crate) payment_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) payment_method: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferBody {
    pub(crate) transfer_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) account: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundBody {
    pub(crate) refund_no: String,
    pub(crate) payment_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

/// One row of the ledger as callers see it, or the cancel of a number that never came.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Shown {
    /// The number of a payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_no: Option<String>,
    /// The number of a transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_no: Option<String>,
    #[schema(inline)]
    status: Status,
    /// Minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_order_no: Option<String>,
    /// The reason of a refusal.
    reason: Option<String>,
    /// True when a cancel gave money back.
    #[serde(skip_serializing_if = "Option::is_none")]
    voided: Option<bool>,
}

impl Shown {
    pub(crate) fn row(book: &Book, entry: &Entry) -> Shown {
        Shown {
            amount: Some(entry.demand.amount),
            currency: Some(entry.demand.currency.clone()),
            channel_order_no: Some(entry.channel_order_no.clone()),
            reason: entry.reason.clone(),
            ..Shown::number(book, entry.demand.number.clone(), entry.status)
        }
    }

    pub(crate) fn cancelled(book: &Book, number: String, voided: Option<bool>) -> Shown {
        Shown { voided, ..Shown::number(book, number, Status::Cancelled) }
    }

    fn number(book: &Book, number: String, status: Status) -> Shown {
        let is_payment = book.number == PAYMENTS.number;
        let (payment_no, transfer_no) = if is_payment { (Some(number), None) } else { (None, Some(number)) };
        Shown {
            payment_no,
            transfer_no,
            status,
            amount: None,
            currency: None,
            channel_order_no: None,
            reason: None,
            voided: None,
        }
    }
}

/// One refund as callers see it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefundShown {
    refund_no: String,
    payment_no: String,
    #[schema(inline)]
    status: Status,
    /// Minor units.
    amount: i64,
    currency: String,
    /// The reason of a refusal.
    reason: Option<String>,
}

impl From<&Refund> for RefundShown {
    fn from(refund: &Refund) -> RefundShown {
        let RefundDemand { refund_no, payment_no, amount, currency, .. } = refund.demand.clone();
        let (status, reason) = (refund.status, refund.reason.clone());
        RefundShown { refund_no, payment_no, status, amount, currency, reason }
    }
}

pub(crate) fn demand(
    headers: &HeaderMap,
    (field, number): (&str, String),
    method: String,
    money: Money,
) -> Result<Demand, Problem> {
    Ok(Demand {
        key: idempotency_key(headers)?,
        number: valid_number(field, number)?,
        method,
        amount: money.amount(),
        currency: money.currency().code().to_owned(),
    })
}

pub(crate) fn money(amount: i64, currency: &str) -> Result<Money, Problem> {
    let currency: Currency = currency.parse().map_err(|error| Problem::invalid("currency", error))?;
    Money::new(amount, currency).map_err(|error| Problem::invalid("amount", error))
}

pub(crate) fn behaviour(field: &str, prefix: &str, method: &str) -> Result<Behaviour, Problem> {
    Behaviour::of(method).filter(|_| method.starts_with(prefix)).ok_or_else(|| {
        Problem::invalid(
            field,
            format!(
                "must be {prefix}ok, {prefix}declined, {prefix}hangs, {prefix}slow or {prefix}never_arrives"
            ),
        )
    })
}

pub(crate) fn valid_number(field: &str, number: String) -> Result<String, Problem> {
    let fits = (1..=64).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(number) } else { Err(Problem::invalid(field, "must be 1 to 64 visible ASCII characters")) }
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if (1..=255).contains(&key.len()) {
        Ok(key.to_owned())
    } else {
        Err(Problem::bad_request("send an Idempotency-Key of 1 to 255 visible ASCII characters"))
    }
}

pub(crate) fn refused(reason: Option<&str>, status: Status) -> Problem {
    let reason = reason.unwrap_or(status.as_str());
    Problem::new(
        StatusCode::PAYMENT_REQUIRED,
        "refused",
        format!("the channel refused: {reason}; no money moved"),
    )
    .with("reason", reason)
}
