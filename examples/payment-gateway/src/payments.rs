//! `/api/v1/payments`: taking a payment, and asking what became of it.
//!
//! Invariant: whatever this process answers after the transaction was committed comes from the payment's row,
//! so the retry after a crash renders the same answer from the same row.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{StatusCode, header};
use probity_idempotency::{Lease, Recording, Verdict};
use probity_saga::{Orchestrator, Outcome, SagaError, Started};
use probity_txn::Effect;
use serde::Deserialize;
use serde_json::{Value, json};
use service_shell::{BODY_LIMIT, Id, JsonBody, Pool, Problem, public_number};

use crate::auth::Merchant;
use crate::domain::{NewPayment, Payment, PaymentBody};
use crate::steps::{PAYMENT, PaymentRequest};
use crate::store::{self, Inserted, Origin, Selection};

/// The state that the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) pool: Pool,
    pub(crate) sagas: Orchestrator,
    pub(crate) request_wait: Duration,
}

/// Checks a payment before its key is claimed: what cannot be right leaves no trace, and the corrected
/// request may use the same key.
pub(crate) async fn checked(request: Request, next: Next) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Problem::bad_request("the body broke off: send it again"))?;
    let copy = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let JsonBody(body) = JsonBody::<PaymentBody>::from_request(copy, &()).await?;
    parts.extensions.insert(NewPayment::try_from(body)?);
    Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await)
}

/// `POST /api/v1/payments`.
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Extension(new): Extension<NewPayment>,
    lease: Lease,
) -> Response {
    let origin = Origin { merchant: merchant.id, mode: merchant.mode, record: lease.record_id() };
    let payment_no = public_number("PAY");
    let request = request(&payment_no, &origin, &new);
    let written = probity_txn::on(&gateway.pool, "create_payment")
        .run(async |tx| -> Result<Option<Started>, CreateError> {
            match store::insert(tx, &payment_no, &origin, &new).await? {
                Inserted::New => {
                    let started = gateway.sagas.start_in(&mut *tx, PAYMENT, &payment_no, &request).await?;
                    Ok(Some(started))
                }
                Inserted::Exists => Ok(None),
            }
        })
        .await;
    match written {
        Ok(Some(started)) => gateway.settled(&origin.record, &started).await,
        Ok(None) => gateway.existing(&origin.record).await,
        // The layer asks the recovery hook when the key comes again, so nothing has to be guessed here.
        Err(error) if error.effect() == Effect::Unknown => undecided(&error),
        Err(error) => {
            (Extension(Verdict::Retryable), Problem::unavailable("the database", &error)).into_response()
        }
    }
}

fn request(payment_no: &str, origin: &Origin, new: &NewPayment) -> PaymentRequest {
    PaymentRequest {
        payment_no: payment_no.to_owned(),
        merchant_id: origin.merchant,
        order_no: new.order_no.clone(),
        amount: new.money.amount(),
        currency: new.money.currency().code().to_owned(),
        payment_method: new.payment_method.clone(),
        items: new.items.clone(),
    }
}

/// Something may have been written and this answer does not tell what.
fn undecided(cause: &dyn std::fmt::Display) -> Response {
    (Extension(Verdict::Unknown), Problem::unavailable("the outcome", cause)).into_response()
}

#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

/// The state of a payment after waiting for it.
#[derive(Debug)]
pub(crate) enum Waited {
    /// Its saga rests; the row says how.
    Settled,
    /// The time to wait is over.
    StillRunning,
}

impl Gateway {
    /// Waits for a payment's saga, and sees to it that the row says what became of it.
    pub(crate) async fn wait(&self, started: &Started) -> Result<Waited, WaitError> {
        let waiting = self.sagas.wait(started);
        match tokio::time::timeout(self.request_wait, waiting).await {
            Err(_) => return Ok(Waited::StillRunning),
            Ok(outcome) => match outcome? {
                Outcome::Completed | Outcome::Compensated { .. } => {
                    store::close_ended(&self.pool).await?;
                }
                Outcome::Stuck { .. } | Outcome::Paused { .. } | Outcome::Aborted { .. } => {}
            },
        }
        Ok(Waited::Settled)
    }

    async fn settled(&self, record: &str, started: &Started) -> Response {
        if let Err(error) = self.wait(started).await {
            return undecided(&error);
        }
        match store::find_by_record(&self.pool, record).await {
            Ok(Some(payment)) => shown(&payment).into_response(),
            Ok(None) => undecided(&"a committed payment cannot be found"),
            Err(error) => undecided(&error),
        }
    }

    /// No row was inserted: an earlier attempt of this very request was here, or another request used the
    /// order number.
    async fn existing(&self, record: &str) -> Response {
        match store::find_by_record(&self.pool, record).await {
            Ok(Some(payment)) => match self.sagas.get(PAYMENT, &payment.payment_no).await {
                Ok(Some(view)) => match self.rejoin(&view.instance.input, &payment.payment_no).await {
                    Ok(started) => self.settled(record, &started).await,
                    Err(error) => undecided(&error),
                },
                Ok(None) => undecided(&"a payment without a saga"),
                Err(error) => undecided(&error),
            },
            Ok(None) => Problem::conflict(
                "order-no-taken",
                "a payment with this order_no exists: GET /api/v1/payments?order_no=… shows it; a new payment needs a new order_no",
            )
            .into_response(),
            Err(error) => undecided(&error),
        }
    }

    /// A handle on a saga that was started before; the same start again is the same saga.
    pub(crate) async fn rejoin(
        &self,
        input: &probity_saga::Document,
        payment_no: &str,
    ) -> Result<Started, RejoinError> {
        let request: PaymentRequest = input.decode()?;
        Ok(self.sagas.start(PAYMENT, payment_no, &request).await?)
    }
}

/// Explains that the end of a saga cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error(transparent)]
    Saga(#[from] SagaError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Explains that a saga that exists cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RejoinError {
    #[error("the stored request cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

/// 201 when it is final, 202 while it is not. A declined payment is a payment: 201 with `failed`.
pub(crate) fn shown(payment: &Payment) -> Recording {
    let status = if payment.status.is_final() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let location = format!("/api/v1/payments/{}", payment.payment_no);
    Recording::new(status.as_u16())
        .header(header::CONTENT_TYPE.as_str(), "application/json")
        .header(header::LOCATION.as_str(), location)
        .body(json!(payment).to_string())
}

/// `GET /api/v1/payments/{payment_no}`: own payments only; another merchant's does not exist.
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Path(payment_no): Path<String>,
) -> Result<Json<Payment>, Problem> {
    let found = store::find(&gateway.pool, merchant.id, &payment_no).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("payment"))
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    limit: Option<i64>,
    before: Option<Id>,
    order_no: Option<String>,
}

/// `GET /api/v1/payments`: newest first, by pages.
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let selection = Selection { order_no: page.order_no, before: page.before, limit };
    let found = store::list(&gateway.pool, merchant.id, &selection).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| full).map(|(id, _)| *id);
    let payments: Vec<_> = found.into_iter().map(|(_, payment)| payment).collect();
    Ok(Json(json!({"payments": payments, "next": next})))
}
