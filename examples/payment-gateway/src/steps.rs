//! The payment saga: three steps, each with *one* effect, and with an undo that works even when nobody knows what
//! happened. A step with two effects would have to say in one word what became of both.
//!
//! Both peers leave a barrier when they are told to cancel what they never saw, so a request that arrives
//! late is refused. That is what makes it right to turn back from an unknown outcome. No step decides what became
//! of the payment: that is the end of the saga (`store::close_ended`).

use probity_saga::{Evidence, Executed, Probe, SagaStep, StepContext, StepError, StepPolicy, WhenUnknown};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::{Id, Pool, only_effect};

use crate::domain::Item;
use crate::peer::{Peer, Said, Whose};
use crate::store;

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const PAYMENT: &str = "payment";

/// The input of a payment saga. It is stored with the saga and survives deploys: only ever add optional fields, and leave
/// them out while they are none, so that what was stored before stays the same input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// Our number for the payment; the saga's business id.
    pub payment_no: String,
    /// Whose payment it is.
    pub merchant_id: Id,
    /// The merchant's own number.
    pub order_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The payment method.
    pub payment_method: String,
    /// The items that are paid for.
    pub items: Vec<Item>,
    /// `test` or `production`, from the API key; none before it travelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl PaymentRequest {
    fn whose(&self) -> Whose<'_> {
        Whose { merchant: self.merchant_id, mode: self.mode.as_deref() }
    }
}

/// The order as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The merchant's own number.
    pub order_no: String,
}

/// The charge as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The channel's own number.
    pub channel_order_no: String,
}

/// The paid order as the saga remembers it: nothing but that it is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidOrder {}

/// Step 1: the order exists. Undo: it is closed, paid or not. By then the charge is settled, because undo runs
/// backwards and stops where it cannot prove itself.
#[derive(Debug)]
pub struct CreateOrder {
    pub(crate) pool: Pool,
    pub(crate) orders: Peer,
    pub(crate) policy: StepPolicy,
}

impl SagaStep for CreateOrder {
    type Input = PaymentRequest;
    type Output = Order;
    const NAME: &'static str = "CreateOrder";

    async fn execute(&self, cx: &StepContext<PaymentRequest>) -> Result<Order, StepError> {
        let request = cx.input();
        let body = json!({
            "order_no": request.order_no,
            "payment_no": request.payment_no,
            "amount": request.amount,
            "currency": request.currency,
            "items": request.items,
        });
        let said = self.orders.post("/api/v1/orders", request.whose(), cx.idempotency_key(), &body).await;
        match said.map_err(only_effect)? {
            Said::Yes(_) => Ok(Order { order_no: request.order_no.clone() }),
            Said::No { kind, .. } => {
                store::note_reason(&self.pool, &request.payment_no, &kind).await?;
                Err(StepError::rejected(kind))
            }
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext<PaymentRequest>,
        _done: Executed<Order>,
    ) -> Result<Evidence, StepError> {
        let (request, key) = (cx.input(), cx.idempotency_key());
        // An order that was paid by a request that came late is given back; every other one is cancelled, and
        // the cancel refuses what comes later still.
        match order_of(&self.orders, request).await? {
            Found::Ours(status) if status == "paid" => {
                refund_order(&self.orders, request, &format!("{key}-refund")).await
            }
            // Closed already, perhaps by a try whose answer was lost.
            Found::Ours(status) if matches!(status.as_str(), "refunded" | "cancelled" | "expired") => {
                Ok(Evidence::new(format!("order {} is {status}", request.order_no)))
            }
            Found::Ours(_) | Found::NotSeenYet => cancel_order(&self.orders, request, key).await,
            // The number belongs to another order, so ours was never created and never can be.
            Found::OfAnotherPayment => Ok(Evidence::new("the order is not of this payment")),
        }
    }

    async fn probe(&self, cx: &StepContext<PaymentRequest>) -> Result<Probe<Order>, StepError> {
        let request = cx.input();
        Ok(match order_of(&self.orders, request).await? {
            Found::Ours(_) => Probe::Applied(Order { order_no: request.order_no.clone() }),
            Found::OfAnotherPayment => Probe::NotApplied,
            Found::NotSeenYet => Probe::NotSeenYet,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone().when_unknown(WhenUnknown::Compensate)
    }
}

/// Step 2: the money is taken, and nothing else happens. Undo: no money is taken, now or later.
#[derive(Debug)]
pub struct CallPaymentChannel {
    pub(crate) pool: Pool,
    pub(crate) channel: Peer,
    pub(crate) policy: StepPolicy,
}

impl SagaStep for CallPaymentChannel {
    type Input = PaymentRequest;
    type Output = Charge;
    const NAME: &'static str = "CallPaymentChannel";

    async fn execute(&self, cx: &StepContext<PaymentRequest>) -> Result<Charge, StepError> {
        let request = cx.input();
        let body = json!({
            "payment_no": request.payment_no,
            "amount": request.amount,
            "currency": request.currency,
            "payment_method": request.payment_method,
        });
        let path = "/api/v1/channel/payments";
        let said = self.channel.post(path, request.whose(), cx.idempotency_key(), &body).await;
        match said.map_err(only_effect)? {
            Said::Yes(answer) => charge(&answer),
            Said::No { reason, .. } => {
                store::note_reason(&self.pool, &request.payment_no, &reason).await?;
                Err(StepError::rejected(reason))
            }
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext<PaymentRequest>,
        done: Executed<Charge>,
    ) -> Result<Evidence, StepError> {
        let request = cx.input();
        let path = format!("/api/v1/channel/payments/{}/cancel", segment(&request.payment_no));
        let said = self.channel.post(&path, request.whose(), cx.idempotency_key(), &json!({})).await;
        let evidence = match said.map_err(only_effect)? {
            Said::Yes(answer) if answer["voided"] == true => "the charge was voided",
            Said::Yes(_) => "nothing was charged, and a late charge will be refused",
            Said::No { reason, .. } => {
                return Err(StepError::unknown(format!("the channel cannot cancel: {reason}")));
            }
        };
        if let Executed::Unknown = done {
            store::note_reason(&self.pool, &request.payment_no, "channel_gave_no_answer").await?;
        }
        Ok(Evidence::new(evidence))
    }

    async fn probe(&self, cx: &StepContext<PaymentRequest>) -> Result<Probe<Charge>, StepError> {
        let request = cx.input();
        // The channel has said it of its own accord, and is not asked.
        if let Some(channel_order_no) = store::noted_charge(&self.pool, &request.payment_no).await? {
            return Ok(Probe::Applied(Charge { channel_order_no }));
        }
        let path = format!("/api/v1/channel/payments/{}", segment(&request.payment_no));
        Ok(match self.channel.get(&path, request.whose()).await? {
            Said::Yes(answer) => match word(&answer, "status") {
                "charged" => Probe::Applied(charge(&answer)?),
                "refused" | "cancelled" => {
                    let reason = answer["reason"].as_str().unwrap_or("cancelled_at_channel");
                    store::note_reason(&self.pool, &request.payment_no, reason).await?;
                    Probe::NotApplied
                }
                _ => Probe::Unknown,
            },
            // The channel has not seen it, which is no proof that it will not arrive.
            Said::No { .. } => Probe::NotSeenYet,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone().when_unknown(WhenUnknown::Compensate)
    }
}

/// Step 3: the order is paid; with that the saga completes, and the payment is a success. Undo: the order is not
/// paid, so that nobody ships what is about to be given back. It stays open: cancelling it waits for the charge.
#[derive(Debug)]
pub struct PayOrder {
    pub(crate) pool: Pool,
    pub(crate) orders: Peer,
    pub(crate) policy: StepPolicy,
}

impl SagaStep for PayOrder {
    type Input = PaymentRequest;
    type Output = PaidOrder;
    const NAME: &'static str = "PayOrder";
    const USES: &'static [&'static str] = &[CallPaymentChannel::NAME];

    async fn execute(&self, cx: &StepContext<PaymentRequest>) -> Result<PaidOrder, StepError> {
        let request = cx.input();
        // A note in our own database, before the effect of this step: a payment whose order is paid has it.
        let charge = cx.output::<CallPaymentChannel, _>()?;
        if !store::note_charge(&self.pool, &request.payment_no, &charge.channel_order_no).await? {
            return Err(StepError::fatal("the channel tells of another charge, or that this one was voided"));
        }
        let path = format!("/api/v1/orders/{}/pay", segment(&request.order_no));
        let body = json!({
            "payment_no": request.payment_no,
            "amount": request.amount,
            "currency": request.currency,
        });
        let said = self.orders.post(&path, request.whose(), cx.idempotency_key(), &body).await;
        match said.map_err(only_effect)? {
            Said::Yes(_) => Ok(PaidOrder {}),
            // The saga turns back, and the undo of the step before gives the money back.
            Said::No { reason, .. } => {
                store::note_reason(&self.pool, &request.payment_no, "order_not_payable").await?;
                Err(StepError::rejected(reason))
            }
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext<PaymentRequest>,
        _done: Executed<PaidOrder>,
    ) -> Result<Evidence, StepError> {
        let (request, key) = (cx.input(), cx.idempotency_key());
        match order_of(&self.orders, request).await? {
            Found::Ours(status) if status == "paid" => refund_order(&self.orders, request, key).await,
            // Delivered: nothing a program may take back.
            Found::Ours(status) if status == "completed" => {
                Err(StepError::unknown("the order is completed: its payment cannot be taken back"))
            }
            // A request that is still on its way meets the undo of the order.
            Found::Ours(status) => Ok(Evidence::new(format!("the order is {status}, not paid"))),
            Found::OfAnotherPayment | Found::NotSeenYet => Ok(Evidence::new("this payment has no order")),
        }
    }

    async fn probe(&self, cx: &StepContext<PaymentRequest>) -> Result<Probe<PaidOrder>, StepError> {
        Ok(match order_of(&self.orders, cx.input()).await? {
            Found::Ours(status) => match status.as_str() {
                "paid" | "completed" => Probe::Applied(PaidOrder {}),
                "pending" => Probe::NotSeenYet,
                // It is closed, and no payment opens it again.
                "cancelled" | "expired" => Probe::NotApplied,
                _ => Probe::Unknown,
            },
            Found::OfAnotherPayment => Probe::NotApplied,
            Found::NotSeenYet => Probe::Unknown,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone().when_unknown(WhenUnknown::Compensate)
    }
}

/// The order of a payment, as the order service knows it now.
pub(crate) enum Found {
    /// It was made for this payment; this is its status.
    Ours(String),
    /// Its number was used for something else.
    OfAnotherPayment,
    /// There is none, but a request that makes it may still be on its way.
    NotSeenYet,
}

async fn order_of(orders: &Peer, request: &PaymentRequest) -> Result<Found, StepError> {
    order_at(orders, &request.order_no, request.whose(), &request.payment_no).await
}

/// Looks for the order of a payment.
pub(crate) async fn order_at(
    orders: &Peer,
    order_no: &str,
    whose: Whose<'_>,
    payment_no: &str,
) -> Result<Found, StepError> {
    let path = format!("/api/v1/orders/{}", segment(order_no));
    Ok(match orders.get(&path, whose).await.map_err(only_effect)? {
        Said::Yes(order) if order["payment_no"] == payment_no => {
            Found::Ours(word(&order, "status").to_owned())
        }
        Said::Yes(_) => Found::OfAnotherPayment,
        Said::No { .. } => Found::NotSeenYet,
    })
}

/// Cancels the order, or sees to it that one that comes late is refused.
async fn cancel_order(orders: &Peer, request: &PaymentRequest, key: &str) -> Result<Evidence, StepError> {
    let path = format!("/api/v1/orders/{}/cancel", segment(&request.order_no));
    let body = json!({"reason": "payment undone", "payment_no": request.payment_no});
    match orders.post(&path, request.whose(), key, &body).await.map_err(only_effect)? {
        Said::Yes(answer) => {
            Ok(Evidence::new(format!("order {} is {}", request.order_no, word(&answer, "status"))))
        }
        Said::No { kind, .. } if kind == "other-payment" => {
            Ok(Evidence::new("the order is not of this payment"))
        }
        // It was paid since we looked: the next try sees that.
        Said::No { reason, .. } => {
            Err(StepError::unknown(format!("the order cannot be cancelled: {reason}")))
        }
    }
}

/// Takes the paid mark from the order again.
async fn refund_order(orders: &Peer, request: &PaymentRequest, key: &str) -> Result<Evidence, StepError> {
    let path = format!("/api/v1/orders/{}/refund", segment(&request.order_no));
    let body = json!({"reason": "payment undone", "payment_no": request.payment_no});
    match orders.post(&path, request.whose(), key, &body).await.map_err(only_effect)? {
        Said::Yes(answer) => {
            Ok(Evidence::new(format!("order {} is {}", request.order_no, word(&answer, "status"))))
        }
        Said::No { reason, .. } => {
            Err(StepError::unknown(format!("the order cannot be given back: {reason}")))
        }
    }
}

fn charge(answer: &Value) -> Result<Charge, StepError> {
    let channel_order_no = answer["channel_order_no"]
        .as_str()
        .ok_or_else(|| StepError::unknown("the channel's answer has no channel_order_no"))?;
    Ok(Charge { channel_order_no: channel_order_no.to_owned() })
}

/// A word of an answer, empty if it is not there.
pub(crate) fn word<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_default()
}

/// One segment of a path: a merchant's order number may hold any visible character.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_number_cannot_leave_its_segment() {
        assert_eq!(segment("A-1_b.c~"), "A-1_b.c~");
        assert_eq!(segment("../x?y#z%"), "..%2Fx%3Fy%23z%25");
    }
}
