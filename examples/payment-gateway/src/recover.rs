//! After a crash: what became of a request whose process is gone?
//!
//! The payment's row carries the idempotency record it was made under, so the answer is looked up, not
//! guessed. No row means that the transaction never committed; and it never will *with an effect of its own*,
//! because the record is unique: a late commit and the new attempt cannot both insert.

use async_trait::async_trait;
use probity_idempotency::{Recover, RecoverContext, Recovered};
use probity_saga::Status;

use crate::payments::{Gateway, shown};
use crate::steps::PAYMENT;
use crate::store;

/// Finds the payment of a lost attempt and renders the answer the client should have got.
#[derive(Clone)]
pub(crate) struct FindPayment(pub(crate) Gateway);

#[async_trait]
impl Recover for FindPayment {
    async fn recover(&self, cx: &RecoverContext) -> Recovered {
        match self.look(&cx.record_id()).await {
            Ok(recovered) => recovered,
            Err(error) => {
                tracing::warn!(%error, "the outcome of a lost request is still unknown");
                Recovered::Unknown
            }
        }
    }
}

impl FindPayment {
    async fn look(&self, record: &str) -> Result<Recovered, Box<dyn std::error::Error + Send + Sync>> {
        let FindPayment(gateway) = self;
        let Some(payment) = store::find_by_record(&gateway.pool, record).await? else {
            return Ok(Recovered::Absent);
        };
        if payment.status.is_final() {
            return Ok(Recovered::Done(shown(&payment)));
        }
        let Some(view) = gateway.sagas.get(PAYMENT, &payment.payment_no).await? else {
            return Ok(Recovered::Unknown);
        };
        // Waiting for a person may take days: say so now. Everything else is worth waiting for.
        let waits_for_a_person =
            matches!(view.instance.status, Status::Stuck | Status::Paused | Status::Aborted);
        if !waits_for_a_person {
            let started = gateway.rejoin(&view.instance.input, &payment.payment_no).await?;
            let _ = gateway.wait(&started).await?;
        }
        let Some(payment) = store::find_by_record(&gateway.pool, record).await? else {
            return Ok(Recovered::Unknown);
        };
        // Not final yet: leave the key open, so that a later retry gets the final answer.
        Ok(if payment.status.is_final() || waits_for_a_person {
            Recovered::Done(shown(&payment))
        } else {
            Recovered::Unknown
        })
    }
}
