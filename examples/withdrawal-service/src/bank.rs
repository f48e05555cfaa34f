//! Calls to the bank, and what its answers prove.
//!
//! Invariant: only an answer in which the bank itself says no counts as a refusal. A lost answer, a broken
//! one, or one we do not understand is unknown: the money may have left.

use probity_saga::{Probe, StepError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::ServiceToken;

use crate::steps::Payout;

/// The bank, through the channel adapter.
#[derive(Clone, Debug)]
pub(crate) struct Bank {
    client: reqwest::Client,
    base: String,
    token: ServiceToken,
}

/// A transfer as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// The bank's own number.
    pub(crate) bank_reference: String,
}

impl Bank {
    pub(crate) fn new(client: reqwest::Client, base: &str, token: &ServiceToken) -> Bank {
        Bank { client, base: base.to_owned(), token: token.clone() }
    }

    /// Sends the money, once per key.
    pub(crate) async fn transfer(&self, payout: &Payout, key: &str) -> Result<Transfer, StepError> {
        let body = json!({
            "transfer_no": payout.withdrawal_no,
            "amount": payout.amount,
            "currency": payout.currency,
            "account": payout.account,
        });
        let call = self.client.post(format!("{}/api/v1/channel/transfers", self.base));
        let call = call.header("idempotency-key", key).json(&body);
        let (status, answer) = self.answer(call).await?;
        match (status, kind(&answer)) {
            (200..300, _) => transfer(&answer),
            (402, Some("refused")) | (422, Some("invalid-field")) | (400, Some("bad-json")) => {
                Err(StepError::rejected(reason(&answer)))
            }
            (status, kind) => Err(unclear(status, kind)),
        }
    }

    /// Asks what became of a transfer.
    pub(crate) async fn look(&self, payout: &Payout) -> Result<Probe<Transfer>, StepError> {
        let call =
            self.client.get(format!("{}/api/v1/channel/transfers/{}", self.base, payout.withdrawal_no));
        let (status, answer) = self.answer(call).await?;
        match (status, answer["status"].as_str(), kind(&answer)) {
            (200, Some("sent"), _) => transfer(&answer).map(Probe::Applied),
            (200, Some("refused" | "cancelled"), _) => Ok(Probe::NotApplied),
            // The bank has not seen it, which is no proof that it will not arrive.
            (404, _, Some("never-seen")) => Ok(Probe::NotSeenYet),
            (status, _, kind) => Err(unclear(status, kind)),
        }
    }

    async fn answer(&self, call: reqwest::RequestBuilder) -> Result<(u16, Value), StepError> {
        let reply = match call.bearer_auth(self.token.text()).send().await {
            Ok(reply) => reply,
            // No connection, so nothing was sent.
            Err(error) if error.is_connect() => {
                return Err(StepError::retryable("no connection to the bank"));
            }
            Err(error) => return Err(error.without_url().into()),
        };
        let status = reply.status().as_u16();
        let body = reply.bytes().await.map_err(reqwest::Error::without_url)?;
        Ok((status, serde_json::from_slice(&body)?))
    }
}

fn transfer(answer: &Value) -> Result<Transfer, StepError> {
    match answer["channel_order_no"].as_str() {
        Some(number) => Ok(Transfer { bank_reference: number.to_owned() }),
        None => Err(StepError::unknown("the bank's answer has no channel_order_no")),
    }
}

fn kind(answer: &Value) -> Option<&str> {
    answer["type"].as_str().and_then(|uri| uri.strip_prefix("urn:probity:problem:"))
}

fn reason(answer: &Value) -> String {
    let said = answer["reason"].as_str().or_else(|| answer["detail"].as_str());
    said.unwrap_or("refused by the bank").to_owned()
}

fn unclear(status: u16, kind: Option<&str>) -> StepError {
    StepError::unknown(format!("the bank answered {status} {}", kind.unwrap_or_default()))
}
