//! `/api/v1/payments`: taking a payment, and asking what became of it.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use probity_idempotency::Lease;
use probity_saga::{SagaError, Started};
use probity_txn::Effect;
use serde::{Deserialize, Serialize};
use service_shell::{Id, Pool, Problem, public_number};
use utoipa::{IntoParams, ToSchema};

use crate::answers::{Gateway, SagaRow, page, page_limit, released, undecided};
use crate::auth::Merchant;
use crate::domain::{NewPayment, Payment, PaymentBody, Status};
use crate::steps::{PAYMENT, PaymentRequest};
use crate::store::{self, Inserted, Origin, Selection};

impl SagaRow for Payment {
    type Request = NewPayment;
    type Input = PaymentRequest;
    const SAGA: &'static str = PAYMENT;
    const PATH: &'static str = "/api/v1/payments";

    fn number(&self) -> &str {
        &self.payment_no
    }

    fn is_final(&self) -> bool {
        self.status.is_final()
    }

    fn is_made_by(&self, input: &PaymentRequest, request: &NewPayment) -> bool {
        let NewPayment { order_no, money, payment_method, channel, description, notify_url, items } = request;
        (&self.order_no, self.amount, self.currency.as_str())
            == (order_no, money.amount(), money.currency().code())
            && (&self.payment_method, &self.channel, &self.description)
                == (payment_method, channel, description)
            && (&self.notify_url, &input.items) == (notify_url, items)
    }

    async fn find_by_record(pool: &Pool, record: &str) -> Result<Option<Payment>, sqlx::Error> {
        store::find_by_record(pool, record).await
    }
}

/// Takes a payment, once per key.
#[utoipa::path(post, path = "/api/v1/payments", request_body = PaymentBody, responses(
    (status = 201, description = "The payment has its end; a declined one is `failed`.", body = Payment),
    (status = 202, description = "The payment is `processing`.", body = Payment),
    (status = 503, description = "Its outcome cannot be told now: send it again with the same key."),
))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Extension(new): Extension<NewPayment>,
    lease: Lease,
) -> Response {
    if new.notifies_inside() && !gateway.tells_inside {
        return released(Problem::invalid(
            "notify_url",
            "must be an https:// address that is reached from outside",
        ));
    }
    let origin = Origin { merchant, record: lease.record_id() };
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
        Ok(Some(started)) => gateway.settled::<Payment>(&origin.record, &started).await,
        // An earlier attempt of this very request was here, or another request used the order number.
        Ok(None) => gateway.existing::<Payment>(&origin.record, &new).await.unwrap_or_else(order_no_taken),
        // The layer asks the recovery hook when the key comes again, so nothing has to be guessed here.
        Err(error) if error.effect() == Effect::Unknown => undecided(&error),
        Err(error) => released(Problem::unavailable("the database", &error)),
    }
}

fn order_no_taken() -> Response {
    Problem::conflict(
        "order-no-taken",
        "a payment with this order_no exists: GET /api/v1/payments?order_no=… shows it; a new payment needs a new order_no",
    )
    .into_response()
}

fn request(payment_no: &str, origin: &Origin, new: &NewPayment) -> PaymentRequest {
    PaymentRequest {
        payment_no: payment_no.to_owned(),
        merchant_id: origin.merchant.id,
        order_no: new.order_no.clone(),
        amount: new.money.amount(),
        currency: new.money.currency().code().to_owned(),
        payment_method: new.payment_method.clone(),
        items: new.items.clone(),
        mode: Some(origin.merchant.mode.clone()),
    }
}

#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

/// Shows one of the own payments; another merchant's does not exist.
#[utoipa::path(get, path = "/api/v1/payments/{payment_no}", responses(
    (status = 200, description = "The payment.", body = Payment),
    (status = 404, description = "The merchant has no such payment."),
))]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Path(payment_no): Path<String>,
) -> Result<Json<Payment>, Problem> {
    let found = store::find(&gateway.pool, &merchant, &payment_no).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("payment"))
}

/// The query of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// The `next` of the page before.
    before: Option<Id>,
    order_no: Option<String>,
    status: Option<Status>,
    currency: Option<String>,
}

/// One page of payments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Payments {
    payments: Vec<Payment>,
    /// The `before` of the next page.
    next: Option<Id>,
}

/// Lists payments, newest first, by pages.
#[utoipa::path(get, path = "/api/v1/payments", params(Page), responses(
    (status = 200, description = "One page.", body = Payments),
    (status = 422, description = "The limit is out of bounds."),
))]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Query(query): Query<Page>,
) -> Result<Json<Payments>, Problem> {
    let limit = page_limit(query.limit)?;
    let Page { before, order_no, status, currency, .. } = query;
    let selection = Selection { order_no, status, currency, before, limit };
    let (payments, next) = page(limit, store::list(&gateway.pool, &merchant, &selection).await?);
    Ok(Json(Payments { payments, next }))
}
