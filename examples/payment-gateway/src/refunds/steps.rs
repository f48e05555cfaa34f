//! The refund saga: the channel gives the money back, then the payment and the order learn of it.
//!
//! The channel's refund is the pivot. Before it nothing has happened; once it may have happened the channel is asked; and
//! after it the saga only goes forward, until a neighbour that is away is back or a person helps. The payment is a row of
//! this database, so its step is a local one: sum and record commit together.

use probity_saga::{ForwardStep, LocalForwardStep, Probe, StepContext, StepError, StepPolicy};
use serde::{Deserialize, Serialize};
use serde_json::json;
use service_shell::{Database, Id, Pool, only_effect};

use crate::peer::{Peer, Said, Whose};
use crate::refunds::store::{self, Connection};
use crate::steps::{Found, order_at, segment, word};

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const REFUND: &str = "refund";

/// The input of a refund saga. It is stored with the saga and survives deploys: only ever add optional fields, and leave
/// them out while they are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundRequest {
    /// Our number for the refund; the saga's business id.
    pub refund_no: String,
    /// The payment it gives back from.
    pub payment_no: String,
    /// Whose payment it is.
    pub merchant_id: Id,
    /// The order that the payment paid.
    pub order_no: String,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// The mode that the payment's saga told its neighbours; none before it travelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

impl RefundRequest {
    pub(crate) fn whose(&self) -> Whose<'_> {
        Whose { merchant: self.merchant_id, mode: self.mode.as_deref() }
    }
}

/// The refund at the channel as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {}

/// The payment after a refund as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booked {
    /// True if all of the payment has been given back.
    pub in_full: bool,
}

/// The refunded order as the saga remembers it: nothing but that it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTold {}

/// The pivot: the channel gives the money back.
#[derive(Debug)]
pub struct RefundAtChannel {
    pub(crate) pool: Pool,
    pub(crate) channel: Peer,
    pub(crate) policy: StepPolicy,
}

impl ForwardStep for RefundAtChannel {
    type Input = RefundRequest;
    type Output = GivenBack;
    const NAME: &'static str = "RefundAtChannel";

    async fn execute(&self, cx: &StepContext<RefundRequest>) -> Result<GivenBack, StepError> {
        let request = cx.input();
        let body = json!({
            "refund_no": request.refund_no,
            "payment_no": request.payment_no,
            "amount": request.amount,
            "currency": request.currency,
        });
        let path = "/api/v1/channel/refunds";
        let said = self.channel.post(path, request.whose(), cx.idempotency_key(), &body).await;
        match said.map_err(only_effect)? {
            Said::Yes(_) => Ok(GivenBack {}),
            Said::No { reason, .. } => {
                store::note_reason(&self.pool, &request.refund_no, &reason).await?;
                Err(StepError::rejected(reason))
            }
        }
    }

    async fn probe(&self, cx: &StepContext<RefundRequest>) -> Result<Probe<GivenBack>, StepError> {
        let request = cx.input();
        let path = format!("/api/v1/channel/refunds/{}", segment(&request.refund_no));
        Ok(match self.channel.get(&path, request.whose()).await? {
            Said::Yes(answer) => match word(&answer, "status") {
                "refunded" => Probe::Applied(GivenBack {}),
                "refused" => {
                    let reason = answer["reason"].as_str().unwrap_or("refused");
                    store::note_reason(&self.pool, &request.refund_no, reason).await?;
                    Probe::NotApplied
                }
                _ => Probe::Unknown,
            },
            Said::No { .. } => Probe::NotSeenYet,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// The payment counts what was given back.
#[derive(Debug)]
pub struct BookRefund {
    pub(crate) policy: StepPolicy,
}

impl LocalForwardStep<Database> for BookRefund {
    type Input = RefundRequest;
    type Output = Booked;
    const NAME: &'static str = "BookRefund";

    async fn execute(
        &self,
        cx: &StepContext<RefundRequest>,
        tx: &mut Connection,
    ) -> Result<Booked, StepError> {
        let request = cx.input();
        match store::book(tx, &request.payment_no, request.amount).await? {
            Some(in_full) => Ok(Booked { in_full }),
            None => Err(StepError::fatal("the channel has given back more than was paid")),
        }
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}

/// The order is refunded, if all of its payment has been given back. A part changes nothing about the order.
#[derive(Debug)]
pub struct RefundOrder {
    pub(crate) orders: Peer,
    pub(crate) policy: StepPolicy,
}

impl ForwardStep for RefundOrder {
    type Input = RefundRequest;
    type Output = OrderTold;
    const NAME: &'static str = "RefundOrder";
    const USES: &'static [&'static str] = &[<BookRefund as LocalForwardStep<Database>>::NAME];

    async fn execute(&self, cx: &StepContext<RefundRequest>) -> Result<OrderTold, StepError> {
        let request = cx.input();
        if !cx.output::<BookRefund, _>()?.in_full {
            return Ok(OrderTold {});
        }
        let path = format!("/api/v1/orders/{}/refund", segment(&request.order_no));
        let body = json!({"reason": request.refund_no, "payment_no": request.payment_no});
        let said = self.orders.post(&path, request.whose(), cx.idempotency_key(), &body).await;
        match said.map_err(only_effect)? {
            Said::Yes(_) => Ok(OrderTold {}),
            Said::No { reason, .. } => {
                Err(StepError::unknown(format!("the order cannot be refunded: {reason}")))
            }
        }
    }

    async fn probe(&self, cx: &StepContext<RefundRequest>) -> Result<Probe<OrderTold>, StepError> {
        let request = cx.input();
        let found = order_at(&self.orders, &request.order_no, request.whose(), &request.payment_no).await?;
        Ok(match found {
            Found::Ours(status) => match status.as_str() {
                // Delivered: it stays completed, although its money is back.
                "refunded" | "completed" => Probe::Applied(OrderTold {}),
                "paid" => Probe::NotSeenYet,
                _ => Probe::Unknown,
            },
            Found::OfAnotherPayment | Found::NotSeenYet => Probe::Unknown,
        })
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}
