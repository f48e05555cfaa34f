//! Telling merchants how their payments and refunds ended.
//!
//! Invariant: the row is marked and the saga of its message starts in one transaction, so each end is told once, by a
//! message whose id and body never change. A merchant may get it twice, and knows it by its id.

pub(crate) mod step;
pub(crate) mod store;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header;
use probity_saga::SagaError;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::answers::Gateway;
use crate::auth::Merchant;
use crate::notifications::step::{NOTIFICATION, Notification, merchant_secret};
use crate::notifications::store::Untold;

/// The reason for which a notification was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl Gateway {
    /// Starts the notifications of what has ended since the last sweep.
    pub(crate) async fn tell_merchants(&self) -> Result<(), sqlx::Error> {
        for untold in store::untold_payments(&self.pool).await? {
            let data = crate::store::find(&self.pool, &owner(&untold), &untold.number).await?;
            self.tell("payment", untold, data).await;
        }
        for untold in store::untold_refunds(&self.pool).await? {
            let data = crate::refunds::store::find(&self.pool, &owner(&untold), &untold.number).await?;
            self.tell("refund", untold, data).await;
        }
        store::close_told(&self.pool).await
    }

    async fn tell(&self, kind: &str, untold: Untold, data: Option<impl Serialize>) {
        let mut data = json!(data);
        let status = data["status"].as_str().unwrap_or_default().to_owned();
        if let Some(data) = data.as_object_mut() {
            data.remove("notify_status");
        }
        let (id, event) = (format!("evt_{}", untold.number), format!("{kind}.{status}"));
        let message = Notification {
            merchant_id: untold.merchant_id,
            mode: untold.mode,
            url: untold.notify_url,
            body: json!({"id": id, "type": event, "data": data}).to_string(),
        };
        let number = &untold.number;
        let started = probity_txn::on(&self.pool, "tell_merchant")
            .run(async |tx| -> Result<(), StartError> {
                if store::mark_pending(tx, number).await? {
                    self.sagas.start_in(&mut *tx, NOTIFICATION, number, &message).await?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = started {
            tracing::warn!(%error, number, "a notification waits for the next sweep");
        }
    }
}

fn owner(untold: &Untold) -> Merchant {
    Merchant { id: untold.merchant_id, mode: untold.mode.clone() }
}

/// The secret of a merchant's notifications, in one mode.
#[derive(Serialize, ToSchema)]
pub(crate) struct NotificationSecret {
    secret: String,
}

/// Shows the secret with which the gateway signs what it sends to this merchant.
#[utoipa::path(get, path = "/api/v1/notifications/secret", responses(
    (status = 200, description = "The secret.", body = NotificationSecret),
))]
pub(crate) async fn secret(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
) -> Response {
    let secret = merchant_secret(&gateway.notification_secret, merchant.id, &merchant.mode);
    ([(header::CACHE_CONTROL, "no-store")], Json(NotificationSecret { secret })).into_response()
}
