//! The formats on the wire: bodies in, checked into demands; ledger rows and refusals out.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use service_shell::{Currency, Money, Problem};

use crate::book::Book;
use crate::domain::{Behaviour, Demand, Entry, Status};
use crate::refund::Refund;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PaymentBody {
    pub(crate) payment_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) payment_method: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferBody {
    pub(crate) transfer_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) account: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefundBody {
    pub(crate) refund_no: String,
    pub(crate) payment_no: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

pub(crate) fn shown(book: &Book, entry: &Entry) -> Value {
    json!({
        book.number: entry.demand.number,
        "status": entry.status,
        "amount": entry.demand.amount,
        "currency": entry.demand.currency,
        "channel_order_no": entry.channel_order_no,
        "reason": entry.reason,
    })
}

pub(crate) fn refund_shown(refund: &Refund) -> Value {
    json!({
        "refund_no": refund.demand.refund_no,
        "payment_no": refund.demand.payment_no,
        "status": refund.status,
        "amount": refund.demand.amount,
        "currency": refund.demand.currency,
        "reason": refund.reason,
    })
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
