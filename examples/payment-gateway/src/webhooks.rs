//! `/api/v1/webhooks/{channel}`: what a channel says of its own accord.
//!
//! Invariant: nothing of a request is read before its signature was checked. A webhook decides nothing: the payment's saga
//! does. What it proves is noted where the saga looks, so a payment whose channel charged and fell silent goes on.

pub(crate) mod event;
pub(crate) mod store;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use chrono::Utc;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use service_shell::{Problem, verify_webhook};
use utoipa::ToSchema;

use crate::answers::Gateway;
use crate::domain::CHANNEL;
use crate::steps::PAYMENT;
use crate::webhooks::event::{Event, Fate};

/// The name under which the audit of a saga keeps what a webhook decided.
const ACTOR: &str = "channel webhook";

const CONTRADICTING: &str = "payment_webhooks_contradicting_total";

/// Describes the metrics of webhooks. The counter begins at 0, so that its first step is seen as one.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        CONTRADICTING,
        "Webhooks that contradict a payment; nothing is changed by them"
    );
    metrics::counter!(CONTRADICTING).increment(0);
}

/// The answer to an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Callback {
    event_id: String,
    status: Fate,
}

/// Takes an event of a channel; 200 once it is stored, so that the channel stops sending it.
#[utoipa::path(post, path = "/api/v1/webhooks/{channel}", request_body = serde_json::Value, responses(
    (status = 200, description = "It is stored.", body = Callback),
    (status = 404, description = "There is no such channel."),
    (status = 422, description = "It is stored, and is no event."),
    (status = 503, description = "It is not stored: send it again."),
))]
pub(crate) async fn receive(
    State(gateway): State<Gateway>,
    Path(channel): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Callback>, Problem> {
    verify_webhook(gateway.webhook_secret.text().as_bytes(), &headers, Utc::now().timestamp(), &body)?;
    if channel != CHANNEL {
        return Err(Problem::not_found("channel"));
    }
    let event = Event::read(&body);
    let fate = probity_txn::on(&gateway.pool, "receive_webhook")
        .run(async |tx| store::receive(tx, &channel, &event, &body).await)
        .await
        .map_err(|error| Problem::unavailable("the database", &error))?;
    tell_people(&event, fate);
    if fate == Fate::Applied
        && let Err(error) = gateway.let_stuck_go_on().await
    {
        tracing::warn!(%error, "stuck payments wait for the next sweep");
    }
    if fate == Fate::Unreadable {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unreadable-event",
            "the body is kept, and is no event: send id, type and data as the document says",
        ));
    }
    Ok(Json(Callback { event_id: event.id, status: fate }))
}

/// Tells people what they must look at.
fn tell_people(event: &Event, fate: Fate) {
    let (event_id, subject) = (&event.id, event.subject());
    match fate {
        Fate::Contradicts => {
            metrics::counter!(CONTRADICTING).increment(1);
            tracing::error!(event_id, subject, "a webhook contradicts what is known");
        }
        Fate::Mismatch | Fate::Unreadable => tracing::warn!(event_id, subject, "a webhook was not applied"),
        _ => {}
    }
}

impl Gateway {
    /// Lets sagas go on that are stuck although a webhook has brought what they need: once per webhook, also if this process
    /// dies in between, or the saga becomes stuck after the webhook came.
    pub(crate) async fn let_stuck_go_on(&self) -> Result<(), sqlx::Error> {
        for (id, payment_no, event_id) in store::to_follow(&self.pool).await? {
            match self.sagas.operator(ACTOR).retry_now(PAYMENT, &payment_no, &event_id).await {
                Ok(_) => store::followed(&self.pool, id).await?,
                Err(error) => tracing::warn!(%error, payment_no, "a stuck payment was not let go on"),
            }
        }
        Ok(())
    }

    /// Takes up webhooks that came before their payment.
    pub(crate) async fn take_up_parked(&self) -> Result<(), sqlx::Error> {
        for (id, raw) in store::ready(&self.pool).await? {
            let event = Event::read(&raw);
            let settled = probity_txn::on(&self.pool, "settle_webhook")
                .run(async |tx| store::settle(tx, id, &event).await)
                .await;
            match settled {
                Ok(fate) => tell_people(&event, fate),
                Err(error) => tracing::warn!(%error, event_id = event.id, "a parked webhook stays parked"),
            }
        }
        Ok(())
    }
}
