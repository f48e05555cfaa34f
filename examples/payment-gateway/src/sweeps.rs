//! The work that no request waits for, done every second.

use std::time::Duration;

use service_shell::Clock;

use crate::answers::{Gateway, close_ended};
use crate::cancel::{TurnError, TurnedBack};
use crate::store::{self, Turned};

/// The interval between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The name under which the audit of a saga keeps that its time was over.
const ACTOR: &str = "expiry";

/// Takes up webhooks, closes payments and refunds, lets payments expire and tells merchants, for ever.
pub(crate) async fn run(gateway: Gateway, expiry: Duration, clock: Clock) {
    loop {
        warn("parked webhooks", gateway.take_up_parked().await);
        warn("stuck payments that a webhook has spoken of", gateway.let_stuck_go_on().await);
        warn("payments that were not paid in time", gateway.expire(expiry, &clock).await);
        match close_ended(&gateway.pool).await {
            Ok(0) => {}
            Ok(closed) => tracing::info!(closed, "payments and refunds have the end of their sagas now"),
            Err(error) => tracing::warn!(%error, "rows of ended sagas cannot be looked for"),
        }
        warn("notifications", gateway.tell_merchants().await);
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

fn warn(what: &str, done: Result<(), sqlx::Error>) {
    if let Err(error) = done {
        tracing::warn!(%error, "{what} cannot be looked for");
    }
}

impl Gateway {
    /// Turns payments back that are open for longer than `expiry` and not charged.
    async fn expire(&self, expiry: Duration, clock: &Clock) -> Result<(), sqlx::Error> {
        for payment_no in store::open_for(&self.pool, clock.seconds_since(expiry)).await? {
            match self.turn_back(&payment_no, Turned::Expired, ACTOR).await {
                Ok(TurnedBack::Asked) => tracing::info!(payment_no, "a payment was not paid in time"),
                // It goes on until its order is paid, or until a person decides.
                Ok(TurnedBack::Charged | TurnedBack::HeldByAPerson) => {}
                Err(TurnError::Database(error)) => return Err(error),
                Err(error) => tracing::warn!(%error, payment_no, "a payment did not expire"),
            }
        }
        Ok(())
    }
}
