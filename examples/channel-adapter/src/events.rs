//! Webhooks: the channel tells its merchants what happened, until somebody answers.
//!
//! Invariant: an event is written in the transaction that makes it true, and sent after it. It is sent again until an
//! answer of 2xx comes, so a receiver may get it twice, and in another order than it happened.

use std::time::Duration;

use chrono::Utc;
use http::header;
use probity_txn::Tx;
use serde_json::{Value, json};
use service_shell::{Database, Id, Pool, ServiceToken, sign_webhook, sql_now, sql_unix_now};

/// The interval between two looks for events to send.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The longest pause before an event is sent again, in seconds.
const LONGEST_PAUSE: i64 = 3600;

/// Writes an event of this type, in the transaction of what it tells.
pub(crate) async fn record(
    tx: &mut Tx<'_, Database>,
    event_type: &str,
    data: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO channel_events (id, event_type, data) VALUES ($1, $2, $3)")
        .bind(Id::new())
        .bind(event_type)
        .bind(data.to_string())
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// Sends events to one address.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) pool: Pool,
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) secret: ServiceToken,
}

impl Sender {
    /// Sends what is due, for ever.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.send_due().await {
                tracing::warn!(%error, "events cannot be read or marked");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn send_due(&self) -> Result<(), sqlx::Error> {
        let due: Vec<(Id, String, String, i64)> = sqlx::query_as(concat!(
            "SELECT id, event_type, data, attempts FROM channel_events
              WHERE delivered_at IS NULL AND due_at <= ",
            sql_unix_now!(),
            " ORDER BY id LIMIT 100"
        ))
        .fetch_all(&self.pool)
        .await?;
        for (id, event_type, data, attempts) in due {
            if self.send(id, &event_type, &data).await {
                let delivered =
                    concat!("UPDATE channel_events SET delivered_at = ", sql_now!(), " WHERE id = $1");
                sqlx::query(delivered).bind(id).execute(&self.pool).await?;
            } else {
                let pause = 1_i64.checked_shl(u32::try_from(attempts).unwrap_or(u32::MAX));
                let pause = pause.unwrap_or(LONGEST_PAUSE).clamp(1, LONGEST_PAUSE);
                sqlx::query(concat!(
                    "UPDATE channel_events SET attempts = attempts + 1, due_at = $2 + ",
                    sql_unix_now!(),
                    " WHERE id = $1"
                ))
                .bind(id)
                .bind(pause)
                .execute(&self.pool)
                .await?;
            }
        }
        Ok(())
    }

    /// Returns true if the receiver has it.
    async fn send(&self, id: Id, event_type: &str, data: &str) -> bool {
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        let body =
            json!({"id": format!("evt_{}", id.0.simple()), "type": event_type, "data": data}).to_string();
        let signed = sign_webhook(self.secret.text().as_bytes(), Utc::now().timestamp(), body.as_bytes());
        let call = self.client.post(&self.url).header(header::CONTENT_TYPE, "application/json").body(body);
        let call = signed.into_iter().fold(call, |call, (name, value)| call.header(name, value));
        match call.send().await {
            Ok(reply) if reply.status().is_success() => true,
            Ok(reply) => {
                tracing::debug!(event_type, status = %reply.status(), "an event was refused");
                false
            }
            Err(error) => {
                tracing::debug!(event_type, %error, "an event was not delivered");
                false
            }
        }
    }
}
