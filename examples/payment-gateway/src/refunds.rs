//! `/api/v1/refunds`: giving money of a payment back, and asking what became of it.
//!
//! Reading order: this file (the life of a request), `refunds/store.rs` (the lock and the sum), `refunds/steps.rs` (the
//! saga), `refunds/domain.rs` (what is refused).

pub(crate) mod domain;
pub(crate) mod steps;
pub(crate) mod store;

use axum::Extension;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use probity_idempotency::Lease;
use probity_saga::{SagaError, Started};
use probity_txn::{Effect, Error, Tx};
use serde::{Deserialize, Serialize};
use service_shell::{Database, Id, Pool, Problem, public_number};
use utoipa::{IntoParams, ToSchema};

use crate::answers::{Gateway, SagaRow, page, page_limit, released, undecided};
use crate::auth::Merchant;
use crate::refunds::domain::{NewRefund, Refund, RefundBody, RefundStatus};
use crate::refunds::steps::{REFUND, RefundRequest};
use crate::refunds::store::Selection;
use crate::store::Origin;

impl SagaRow for Refund {
    type Request = NewRefund;
    type Input = RefundRequest;
    const SAGA: &'static str = REFUND;
    const PATH: &'static str = "/api/v1/refunds";

    fn number(&self) -> &str {
        &self.refund_no
    }

    fn is_final(&self) -> bool {
        matches!(self.status, RefundStatus::Success | RefundStatus::Failed)
    }

    fn is_made_by(&self, _: &RefundRequest, request: &NewRefund) -> bool {
        let NewRefund { payment_no, money, reason } = request;
        (&self.payment_no, self.amount, self.currency.as_str())
            == (payment_no, money.amount(), money.currency().code())
            && self.reason == *reason
    }

    async fn find_by_record(pool: &Pool, record: &str) -> Result<Option<Refund>, sqlx::Error> {
        store::find_by_record(pool, record).await
    }
}

/// The reason for which a refund was not inserted.
#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Refused(#[from] Problem),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

/// Gives money of a payment back, once per key.
#[utoipa::path(post, path = "/api/v1/refunds", request_body = RefundBody, responses(
    (status = 201, description = "The refund has its end.", body = Refund),
    (status = 202, description = "The refund is `processing`.", body = Refund),
    (status = 404, description = "The merchant has no such payment."),
    (status = 503, description = "Its outcome cannot be told now: send it again with the same key."),
))]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Extension(new): Extension<NewRefund>,
    lease: Lease,
) -> Response {
    let origin = Origin { merchant, record: lease.record_id() };
    let refund_no = public_number("REF");
    let written = probity_txn::on(&gateway.pool, "create_refund")
        .run(async |tx| gateway.start_refund(tx, &refund_no, &origin, &new).await)
        .await;
    match written {
        Ok(Some(started)) => gateway.settled::<Refund>(&origin.record, &started).await,
        Ok(None) => match gateway.existing::<Refund>(&origin.record, &new).await {
            Some(answer) => answer,
            None => undecided(&"a refund that was seen cannot be found"),
        },
        // Nothing was written, and the same request may be right later: the key is given back.
        Err(Error::App(CreateError::Refused(problem))) => released(problem),
        Err(error) if error.effect() == Effect::Unknown => undecided(&error),
        Err(error) => released(Problem::unavailable("the database", &error)),
    }
}

impl Gateway {
    /// Locks the payment, sums, inserts and starts the saga; `None` if an earlier attempt of this request did.
    async fn start_refund(
        &self,
        tx: &mut Tx<'_, Database>,
        refund_no: &str,
        origin: &Origin,
        new: &NewRefund,
    ) -> Result<Option<Started>, CreateError> {
        let locked = store::lock_payment(tx, &origin.merchant, &new.payment_no).await?;
        let (lock, payment) = locked.ok_or_else(|| Problem::not_found("payment"))?;
        // Under the lock: two attempts of one request do not both see nothing.
        if store::find_by_record(&mut *tx, &origin.record).await?.is_some() {
            return Ok(None);
        }
        new.check(&payment, store::reserved(tx, &lock).await?)?;
        store::insert(tx, &lock, refund_no, origin, new).await?;
        let request = RefundRequest {
            refund_no: refund_no.to_owned(),
            payment_no: payment.payment_no,
            merchant_id: origin.merchant.id,
            order_no: payment.order_no,
            amount: new.money.amount(),
            currency: payment.currency,
            mode: payment.peer_mode,
        };
        Ok(Some(self.sagas.start_in(&mut *tx, REFUND, refund_no, &request).await?))
    }
}

/// Shows one of the own refunds; another merchant's does not exist.
#[utoipa::path(get, path = "/api/v1/refunds/{refund_no}", responses(
    (status = 200, description = "The refund.", body = Refund),
    (status = 404, description = "The merchant has no such refund."),
))]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Path(refund_no): Path<String>,
) -> Result<Json<Refund>, Problem> {
    let found = store::find(&gateway.pool, &merchant, &refund_no).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("refund"))
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
    payment_no: Option<String>,
    status: Option<RefundStatus>,
}

/// One page of refunds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Refunds {
    refunds: Vec<Refund>,
    /// The `before` of the next page.
    next: Option<Id>,
}

/// Lists refunds, newest first, by pages.
#[utoipa::path(get, path = "/api/v1/refunds", params(Page), responses(
    (status = 200, description = "One page.", body = Refunds),
    (status = 422, description = "The limit is out of bounds."),
))]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    Extension(merchant): Extension<Merchant>,
    Query(query): Query<Page>,
) -> Result<Json<Refunds>, Problem> {
    let limit = page_limit(query.limit)?;
    let Page { payment_no, status, before, .. } = query;
    let selection = Selection { payment_no, status, before, limit };
    let (refunds, next) = page(limit, store::list(&gateway.pool, &merchant, &selection).await?);
    Ok(Json(Refunds { refunds, next }))
}
