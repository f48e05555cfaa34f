//! The notification saga: one step, tried for a day.
//!
//! A message cannot be unsent, and sending it again is harmless, because its id stays the same. So every failure is an
//! outcome that is not known: the step is tried again, and when its tries are over the saga is `stuck`. That is the dead
//! letter: it is listed, alerted of and sent again by the means that every saga has.

use chrono::Utc;
use http::header;
use probity_saga::{ForwardStep, StepContext, StepError, StepPolicy};
use serde::{Deserialize, Serialize};
use service_shell::signature::sign;
use service_shell::{Id, ServiceToken, sign_webhook};

/// The business name of the saga; `business_type` in `saga_instances`.
pub(crate) const NOTIFICATION: &str = "notification";
/// The provider of its step: the addresses of all merchants together.
pub(crate) const MERCHANTS: &str = "merchants";

/// The input of a notification saga. It is stored with the saga and survives deploys: only ever add optional fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The merchant to be told.
    pub merchant_id: Id,
    /// `test` or `production`, from the API key.
    pub mode: String,
    /// The address.
    pub url: String,
    /// The message, as it is signed and sent each time.
    pub body: String,
}

/// The delivery as the saga remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The HTTP status of the merchant's answer.
    pub status: u16,
}

/// Derives the secret of a merchant, of which nothing has to be stored.
pub(crate) fn merchant_secret(platform: &ServiceToken, merchant: Id, mode: &str) -> String {
    let whose = format!("notifications\n{merchant}\n{mode}");
    format!("whsec_{}", sign(platform.text().as_bytes(), whose.as_bytes()))
}

/// Tells a merchant, once the merchant's server says 2xx.
#[derive(Debug)]
pub struct DeliverNotification {
    pub(crate) client: reqwest::Client,
    pub(crate) secret: ServiceToken,
    pub(crate) policy: StepPolicy,
}

impl ForwardStep for DeliverNotification {
    type Input = Notification;
    type Output = Delivered;
    const NAME: &'static str = "DeliverNotification";

    async fn execute(&self, cx: &StepContext<Notification>) -> Result<Delivered, StepError> {
        let Notification { merchant_id, mode, url, body } = cx.input();
        let secret = merchant_secret(&self.secret, *merchant_id, mode);
        let call = self.client.post(url).header(header::CONTENT_TYPE, "application/json").body(body.clone());
        let signed = sign_webhook(secret.as_bytes(), Utc::now().timestamp(), body.as_bytes());
        let call = signed.into_iter().fold(call, |call, (name, value)| call.header(name, value));
        let reply = call.send().await.map_err(|error| StepError::unknown(error.without_url().to_string()))?;
        match reply.status() {
            status if status.is_success() => Ok(Delivered { status: status.as_u16() }),
            status => Err(StepError::unknown(format!("the merchant's server answered {status}"))),
        }
    }

    fn policy(&self) -> StepPolicy {
        self.policy.clone()
    }
}
