//! Turning a payment back before its charge: because its merchant asks, or because its time is over.
//!
//! Invariant: a payment is turned back by its saga and by nothing else. The wish is noted in the payment's row first, so
//! the row says why it failed once the saga has proven that everything is undone. A charge that stands is never undone
//! here: it is given back by a refund.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::StatusCode;
use probity_saga::{Cancelled, SagaError, SagaStep as _, SagaView, Status as SagaStatus, StepStatus};
use service_shell::Problem;

use crate::answers::Gateway;
use crate::auth::Merchant;
use crate::domain::{Payment, Status};
use crate::steps::{CallPaymentChannel, PAYMENT};
use crate::store::{self, Turned};

/// The number of looks at a saga that keeps moving; each step of it moves it a few times.
const LOOKS_MAX: usize = 20;

/// The answer to the wish that a payment be turned back.
#[derive(Debug)]
#[must_use = "a payment may not turn back"]
pub(crate) enum TurnedBack {
    /// Its saga undoes it, or was asked to.
    Asked,
    /// The money is taken.
    Charged,
    /// A person has stopped its saga.
    HeldByAPerson,
}

/// The reason for which a request could not be sent to a saga.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error(transparent)]
    Saga(#[from] SagaError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a payment without a saga")]
    NoSaga,
}

impl From<TurnError> for Problem {
    fn from(error: TurnError) -> Problem {
        Problem::unavailable("the outcome", &error)
    }
}

/// Cancels a payment before its charge; the second cancel changes nothing, so it needs no key.
#[utoipa::path(post, path = "/api/v1/payments/{payment_no}/cancel", responses(
    (status = 200, description = "The payment has ended without a charge.", body = Payment),
    (status = 202, description = "The payment is being undone.", body = Payment),
    (status = 404, description = "The merchant has no such payment."),
    (status = 409, description = "The money is taken, or a person has stopped the payment."),
    (status = 503, description = "Its outcome cannot be told now: send it again."),
))]
pub(crate) async fn cancel(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Path(payment_no): Path<String>,
) -> Result<Response, Problem> {
    let payment = gateway.payment(&merchant, &payment_no).await?;
    if !payment.status.is_final() {
        let actor = format!("merchant {}", merchant.id);
        match gateway.turn_back(&payment_no, Turned::Cancelled, &actor).await? {
            TurnedBack::Asked => gateway.wait_for(&payment_no).await?,
            TurnedBack::Charged => return Err(charged()),
            TurnedBack::HeldByAPerson => return Err(held()),
        }
    }
    let payment = gateway.payment(&merchant, &payment_no).await?;
    match payment.status {
        // It was charged before the wish was seen.
        Status::Success => Err(charged()),
        status if status.is_final() => Ok(Json(payment).into_response()),
        _ => Ok((StatusCode::ACCEPTED, Json(payment)).into_response()),
    }
}

fn charged() -> Problem {
    Problem::conflict(
        "already-charged",
        "the money is taken and a cancel comes too late: once the payment is a success, give it back with \
         POST /api/v1/refunds",
    )
}

fn held() -> Problem {
    Problem::conflict("saga-state", "a person has stopped this payment to look at it: try again later")
}

impl Gateway {
    async fn payment(&self, merchant: &Merchant, payment_no: &str) -> Result<Payment, Problem> {
        let found = store::find(&self.pool, merchant, payment_no).await?;
        found.ok_or_else(|| Problem::not_found("payment"))
    }

    /// Asks a saga to turn back. One that moves between the look of the verb and its decision is asked again: nobody said
    /// which state of it was seen.
    pub(crate) async fn ask_to_turn(
        &self,
        payment_no: &str,
        actor: &str,
        reason: &str,
    ) -> Result<Cancelled, SagaError> {
        let operator = self.sagas.operator(actor);
        for _ in 1..LOOKS_MAX {
            match operator.compensate(PAYMENT, payment_no, reason).await {
                Err(SagaError::Stale) => {}
                answer => return answer,
            }
        }
        operator.compensate(PAYMENT, payment_no, reason).await
    }

    /// Asks the saga of an open payment to turn back, unless the money is taken.
    pub(crate) async fn turn_back(
        &self,
        payment_no: &str,
        turned: Turned,
        actor: &str,
    ) -> Result<TurnedBack, TurnError> {
        let view = self.sagas.get(PAYMENT, payment_no).await?.ok_or(TurnError::NoSaga)?;
        match view.instance.status {
            SagaStatus::Compensating | SagaStatus::Compensated => return Ok(TurnedBack::Asked),
            // It turned back already, and its undo waits for a person.
            SagaStatus::Stuck if view.instance.resume_status == Some(SagaStatus::Compensating) => {
                return Ok(TurnedBack::Asked);
            }
            SagaStatus::Completed => return Ok(TurnedBack::Charged),
            SagaStatus::Paused | SagaStatus::Aborted => return Ok(TurnedBack::HeldByAPerson),
            _ if is_charged(&view) => return Ok(TurnedBack::Charged),
            _ => {}
        }
        store::note_reason(&self.pool, payment_no, turned.as_str()).await?;
        match self.ask_to_turn(payment_no, actor, turned.as_str()).await {
            Ok(_) => Ok(TurnedBack::Asked),
            // It moved between the look and the wish: only its end says that the money is taken.
            Err(error @ SagaError::Refused { .. }) => {
                let now = self.sagas.get(PAYMENT, payment_no).await?.ok_or(TurnError::NoSaga)?.instance;
                match (now.status, now.resume_status) {
                    (SagaStatus::Completed, _) => Ok(TurnedBack::Charged),
                    (SagaStatus::Paused | SagaStatus::Aborted, _) => Ok(TurnedBack::HeldByAPerson),
                    (SagaStatus::Stuck, Some(SagaStatus::Compensating)) => Ok(TurnedBack::Asked),
                    _ => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a payment as long as its first request did.
    async fn wait_for(&self, payment_no: &str) -> Result<(), Problem> {
        let down = |error: &dyn std::fmt::Display| Problem::unavailable("the outcome", error);
        let view = self.sagas.get(PAYMENT, payment_no).await.map_err(|error| down(&error))?;
        let Some(view) = view else { return Ok(()) };
        let started =
            self.rejoin::<Payment>(&view.instance.input, payment_no).await.map_err(|error| down(&error))?;
        let _ = self.wait(&started).await.map_err(|error| down(&error))?;
        Ok(())
    }
}

/// Returns true if the channel has said that the money is taken.
fn is_charged(view: &SagaView) -> bool {
    let charge = view.steps.iter().find(|step| step.name == CallPaymentChannel::NAME);
    charge.is_some_and(|step| step.status == StepStatus::Succeeded)
}
