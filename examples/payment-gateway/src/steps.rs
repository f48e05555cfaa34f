//! The payment saga: two steps, each with an undo that works even when nobody knows what happened.
//!
//! Both peers leave a barrier when they are told to cancel what they never saw, so a request that arrives
//! late is refused. That is what makes it right to turn back from an unknown outcome.

use probity_saga::{Evidence, Executed, Probe, SagaStep, StepContext, StepError, StepPolicy, WhenUnknown};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::{Id, Pool};

use crate::domain::Item;
use crate::peer::{Peer, Said};
use crate::store;

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const PAYMENT: &str = "payment";

/// What a payment saga is started with; stored with it, so it survives deploys: only ever add optional fields.
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
    /// How the customer pays.
    pub payment_method: String,
    /// What is paid for.
    pub items: Vec<Item>,
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

/// Step 1: the order exists. Undo: it is cancelled, and the payment has failed.
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
        match self.orders.post("/api/v1/orders", request.merchant_id, cx.idempotency_key(), &body).await? {
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
        let request = cx.input();
        let path = format!("/api/v1/orders/{}/cancel", segment(&request.order_no));
        let body = json!({"reason": "payment undone", "payment_no": request.payment_no});
        let evidence = match self.orders.post(&path, request.merchant_id, cx.idempotency_key(), &body).await?
        {
            Said::Yes(answer) => format!("order {} is {}", request.order_no, word(&answer, "status")),
            // The number belongs to another order, so ours was never created and never can be.
            Said::No { kind, .. } if kind == "other-payment" => "the order is not of this payment".to_owned(),
            Said::No { reason, .. } => {
                return Err(StepError::unknown(format!("the order cannot be cancelled: {reason}")));
            }
        };
        store::mark_failed(&self.pool, &request.payment_no, "undone").await?;
        Ok(Evidence::new(evidence))
    }

    async fn probe(&self, cx: &StepContext<PaymentRequest>) -> Result<Probe<Order>, StepError> {
        let request = cx.input();
        let path = format!("/api/v1/orders/{}", segment(&request.order_no));
        Ok(match self.orders.get(&path, request.merchant_id).await? {
            Said::Yes(order) if order["payment_no"] == request.payment_no => {
                Probe::Applied(Order { order_no: request.order_no.clone() })
            }
            Said::Yes(_) => Probe::NotApplied,
            Said::No { .. } => Probe::NotSeenYet,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone().when_unknown(WhenUnknown::Compensate)
    }
}

/// Step 2: the money is taken and the order is paid; with that the saga completes, and the payment is a
/// success. Undo: no money is taken.
#[derive(Debug)]
pub struct CallPaymentChannel {
    pub(crate) pool: Pool,
    pub(crate) channel: Peer,
    pub(crate) orders: Peer,
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
        match self.channel.post(path, request.merchant_id, cx.idempotency_key(), &body).await? {
            Said::Yes(answer) => self.settle(cx, charge(&answer)?).await,
            Said::No { reason, .. } => {
                store::note_reason(&self.pool, &request.payment_no, &reason).await?;
                Err(StepError::rejected(reason))
            }
        }
    }

    async fn compensate(
        &self,
        cx: &StepContext<PaymentRequest>,
        _done: Executed<Charge>,
    ) -> Result<Evidence, StepError> {
        let request = cx.input();
        let key = cx.idempotency_key();
        let path = format!("/api/v1/channel/payments/{}/cancel", segment(&request.payment_no));
        let evidence = match self.channel.post(&path, request.merchant_id, key, &json!({})).await? {
            Said::Yes(answer) if answer["voided"] == true => "the charge was voided",
            Said::Yes(_) => "nothing was charged, and a late charge will be refused",
            Said::No { reason, .. } => {
                return Err(StepError::unknown(format!("the channel cannot cancel: {reason}")));
            }
        };
        // The order may have been paid by an attempt whose end nobody saw. `order-state`: it was not.
        let path = format!("/api/v1/orders/{}/refund", segment(&request.order_no));
        let body = json!({"reason": "charge cancelled"});
        let order_key = format!("{key}-order");
        let _unpaid: Said = self.orders.post(&path, request.merchant_id, &order_key, &body).await?;
        store::note_reason(&self.pool, &request.payment_no, "channel_gave_no_answer").await?;
        Ok(Evidence::new(evidence))
    }

    async fn probe(&self, cx: &StepContext<PaymentRequest>) -> Result<Probe<Charge>, StepError> {
        let request = cx.input();
        let path = format!("/api/v1/channel/payments/{}", segment(&request.payment_no));
        Ok(match self.channel.get(&path, request.merchant_id).await? {
            Said::Yes(answer) => match word(&answer, "status") {
                "charged" => Probe::Applied(self.settle(cx, charge(&answer)?).await?),
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

impl CallPaymentChannel {
    /// The money was taken: pays the order and keeps the channel's number. May run again after any interruption.
    async fn settle(&self, cx: &StepContext<PaymentRequest>, charge: Charge) -> Result<Charge, StepError> {
        let request = cx.input();
        let path = format!("/api/v1/orders/{}/pay", segment(&request.order_no));
        let key = format!("{}-order", cx.idempotency_key());
        let body = json!({
            "payment_no": request.payment_no,
            "amount": request.amount,
            "currency": request.currency,
        });
        match self.orders.post(&path, request.merchant_id, &key, &body).await? {
            Said::Yes(_) => {}
            // The money was taken, so this is no refusal of the step: the undo has to give it back.
            Said::No { reason, .. } => {
                store::note_reason(&self.pool, &request.payment_no, "order_not_payable").await?;
                return Err(StepError::unknown(format!("charged, but the order cannot be paid: {reason}")));
            }
        }
        store::note_charge(&self.pool, &request.payment_no, &charge.channel_order_no).await?;
        Ok(charge)
    }
}

fn charge(answer: &Value) -> Result<Charge, StepError> {
    let channel_order_no = answer["channel_order_no"]
        .as_str()
        .ok_or_else(|| StepError::unknown("the channel's answer has no channel_order_no"))?;
    Ok(Charge { channel_order_no: channel_order_no.to_owned() })
}

fn word<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_default()
}

/// One segment of a path: a merchant's order number may hold any visible character.
fn segment(text: &str) -> String {
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
