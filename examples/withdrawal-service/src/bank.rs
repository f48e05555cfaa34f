//! Calls to the bank, and what its answers prove.
//!
//! Invariant: only an answer in which the bank itself says no counts as a refusal. A lost answer, a broken
//! one, or one we do not understand is a [`CallError`]: the money may have left.

use probity_saga::{Probe, StepError};
use reqwest::RequestBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::{CallError, MODE_HEADER, Peer, Reply};

use crate::domain::Payout;

/// The bank, through the channel adapter.
#[derive(Clone, Debug)]
pub(crate) struct Bank(Peer);

/// A transfer as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// The bank's own number.
    pub(crate) bank_reference: String,
}

/// The bank's answer to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a refusal is not a transfer"]
pub(crate) enum Said {
    /// The money is sent.
    Sent(Transfer),
    /// The money is not sent and never will be, for this reason.
    Refused(String),
}

impl Bank {
    pub(crate) fn new(peer: Peer) -> Bank {
        Bank(peer)
    }

    /// The name of the bank: the provider of the steps that call it.
    pub(crate) fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Calls the bank in the mode of the withdrawal: test money never leaves.
    async fn call(&self, payout: &Payout, call: RequestBuilder) -> Result<Reply, CallError> {
        self.0.send(call.header(MODE_HEADER, payout.mode.as_str())).await
    }

    /// Sends the money, once per key.
    pub(crate) async fn transfer(&self, payout: &Payout, key: &str) -> Result<Said, CallError> {
        let body = json!({
            "transfer_no": payout.withdrawal_no,
            "amount": payout.amount,
            "currency": payout.currency,
            "account": payout.account,
        });
        let reply = self.call(payout, self.0.post("/api/v1/channel/transfers", key, &body)).await?;
        match (reply.status.as_u16(), reply.kind(), transfer(&reply.body)) {
            (200..300, _, Some(transfer)) => Ok(Said::Sent(transfer)),
            (402, Some("refused"), _) | (422, Some("invalid-field"), _) | (400, Some("bad-json"), _) => {
                Ok(Said::Refused(reply.reason()))
            }
            _ => Err(self.0.unclear(&reply)),
        }
    }

    /// Asks what became of a transfer.
    pub(crate) async fn look(&self, payout: &Payout) -> Result<Probe<Transfer>, StepError> {
        let path = format!("/api/v1/channel/transfers/{}", payout.withdrawal_no);
        let reply = self.call(payout, self.0.get(&path)).await?;
        match (reply.status.as_u16(), reply.body["status"].as_str(), transfer(&reply.body)) {
            (200, Some("sent"), Some(transfer)) => Ok(Probe::Applied(transfer)),
            (200, Some("refused" | "cancelled"), _) => Ok(Probe::NotApplied),
            // The bank has not seen it, which is no proof that it will not arrive.
            (404, _, _) if reply.kind() == Some("never-seen") => Ok(Probe::NotSeenYet),
            _ => Err(self.0.unclear(&reply).into()),
        }
    }
}

fn transfer(answer: &Value) -> Option<Transfer> {
    let bank_reference = answer["channel_order_no"].as_str()?.to_owned();
    Some(Transfer { bank_reference })
}
