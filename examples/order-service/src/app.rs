//! The routes of the order service. Each write and the record of its answer commit in one transaction, so a
//! repeated request changes nothing and gets the first answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use http::request::Parts;
use http::{StatusCode, header};
use probity_idempotency::{
    Effects, IdempotencyLayer, IdempotencyManager, Lease, Recording, Refusal, Scope, StoreError,
};
use probity_txn::Tx;
use serde::{Deserialize, Serialize};
use service_shell::{
    Clock, Credential, Database, Drain, Guarded, Health, Id, Json, Mode, Pool, Problem, Purging,
    ServiceToken, Settings, StartError, World, api, database, shell,
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::{NewOrder, Order, OrderBody, Status, number};
use crate::settings::Own;
use crate::store::{self, Changed, Created, Payment, Selection};

#[cfg(not(feature = "postgres"))]
type Records = probity_idempotency::SqliteStore;
#[cfg(feature = "postgres")]
type Records = probity_idempotency::PostgresStore;

/// The interval between two looks for orders that were not paid in time.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pool: Pool,
}

/// Opens the database and returns the routes, and what to do after serving.
///
/// # Cancel safety
/// Safe: an opened database is closed again.
///
/// # Errors
/// [`StartError`] when a setting or the database cannot be used.
pub async fn start(settings: Settings) -> Result<(Router, Drain), StartError> {
    start_at(settings, Clock::default()).await
}

/// Does the same as [`start`], with a clock that a test can move.
///
/// # Cancel safety
/// The same as for [`start`].
///
/// # Errors
/// The errors of [`start`].
pub async fn start_at(settings: Settings, clock: Clock) -> Result<(Router, Drain), StartError> {
    let Own { order_expiry } = settings.own()?;
    let pool = database::open(&settings).await?;
    store::SCHEMA.apply(&pool).await?;
    let records = Records::new(pool.clone())
        .await
        .map_err(|error| StartError::other("the idempotency records", error))?;
    let records: Arc<dyn IdempotencyManager> = Arc::new(records);
    let purging = Purging::of(&settings).records(Arc::clone(&records));
    let idempotent = IdempotencyLayer::new(records).scope(merchant_scope).effects(Effects::Local);
    let tasks = idempotent.tasks();
    let expiring = tokio::spawn(keep_expiring(pool.clone(), order_expiry, clock));
    let drain = purging
        .start(Drain::nothing())
        .then("requests", move || async move { tasks.drain().await })
        .then("expiring", move || async move { expiring.abort() })
        .close(&pool);
    let health = Health::named(settings.name).database(&pool);
    let routes = routes(idempotent, &settings.service_token).with_state(App { pool });
    Ok((shell(settings.name, health, routes)?, drain))
}

/// Lets orders expire that nobody paid, for ever.
async fn keep_expiring(pool: Pool, expiry: Duration, clock: Clock) {
    loop {
        let seconds = clock.seconds_since(expiry);
        let expired =
            probity_txn::on(&pool, "expire_orders").run(async |tx| store::expire(tx, seconds).await);
        match expired.await {
            Ok(0) => {}
            Ok(expired) => tracing::info!(expired, "orders were not paid in time"),
            Err(error) => tracing::warn!(%error, "orders that were not paid in time cannot be looked for"),
        }
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}

/// All routes.
fn routes(idempotent: IdempotencyLayer, token: &ServiceToken) -> OpenApiRouter<App> {
    api("Orders of merchants. Money is an integer of minor units.")
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(pay))
        .routes(routes!(cancel))
        .routes(routes!(refund))
        .keyed(idempotent)
        .require(Credential::Service, token)
}

/// Keys belong to the merchant and the mode the call is about: two of them may use the same one.
fn merchant_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let World { merchant, mode } = World::from_headers(&parts.headers)
        .map_err(|problem| Refusal::new(problem.status(), problem.detail()))?;
    Ok(Scope::new(match mode {
        Mode::Production => format!("order-service:merchant:{merchant}"),
        Mode::Test => format!("order-service:merchant:{merchant}:test"),
    })?)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PayBody {
    payment_no: String,
    amount: i64,
    currency: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: String,
    payment_no: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<i64>,
    /// The `next` of the page before.
    before: Option<Id>,
    #[param(inline)]
    status: Option<Status>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Orders {
    orders: Vec<Order>,
    /// The `before` of the next page.
    next: Option<Id>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Cancelled<'a> {
    order_no: &'a str,
    status: Status,
    /// False for an order that never came; one that comes late is refused.
    seen: bool,
}

/// Creates an order; a repetition for the same payment gets the one that is there.
#[utoipa::path(post, path = "/api/v1/orders", params(World), responses(
    (status = 201, description = "The order.", body = Order),
    (status = 200, description = "The order was there.", body = Order),
))]
async fn create(
    State(app): State<App>,
    world: World,
    lease: Lease,
    Json(body): Json<OrderBody>,
) -> Result<Recording, Problem> {
    let new = NewOrder::try_from(body)?;
    probity_txn::on(&app.pool, "create_order")
        .run(async |tx| {
            let answer = match store::create(tx, world, &new).await? {
                Created::New(order) => success(StatusCode::CREATED, &order),
                Created::Existing(order) => success(StatusCode::OK, &order),
                Created::NumberTaken => refusal(&Problem::conflict(
                    "order-number-taken",
                    "this merchant has an order with this number: use another one",
                )),
                Created::Cancelled => refusal(&Problem::conflict(
                    "order-cancelled",
                    "the order was cancelled before it arrived, or is closed: use another number",
                )),
            };
            recorded(tx, &lease, answer).await
        })
        .await
        .map_err(write_failed)
}

/// Marks an order as paid by a payment.
#[utoipa::path(post, path = "/api/v1/orders/{order_no}/pay", params(World), responses(
    (status = 200, description = "The order.", body = Order),
    (status = 404, description = "The merchant has no such order."),
))]
async fn pay(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    Json(body): Json<PayBody>,
) -> Result<Recording, Problem> {
    let payment_no = number("payment_no", body.payment_no)?;
    let payment = Payment { payment_no, amount: body.amount, currency: body.currency };
    probity_txn::on(&app.pool, "pay_order")
        .run(async |tx| {
            let answer = shown(&store::pay(tx, world, &order_no, &payment).await?);
            recorded(tx, &lease, answer).await
        })
        .await
        .map_err(write_failed)
}

/// Cancels an order, also one that has not come yet.
#[utoipa::path(post, path = "/api/v1/orders/{order_no}/cancel", params(World), responses(
    (status = 200, description = "It will not be paid.", body = Cancelled<'_>),
))]
async fn cancel(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    Json(body): Json<ReasonBody>,
) -> Result<Recording, Problem> {
    let order_no = number("order_no", order_no)?;
    probity_txn::on(&app.pool, "cancel_order")
        .run(async |tx| {
            let payment_no = body.payment_no.as_deref();
            let answer = match store::cancel(tx, world, &order_no, payment_no, &body.reason).await? {
                // The barrier is set: an order with this number can no longer be created.
                Changed::Missing => cancelled(&order_no, Status::Cancelled, false),
                Changed::Order { order, .. } => cancelled(&order_no, order.status, true),
                other => shown(&other),
            };
            recorded(tx, &lease, answer).await
        })
        .await
        .map_err(write_failed)
}

/// Marks a paid order as given back.
#[utoipa::path(post, path = "/api/v1/orders/{order_no}/refund", params(World), responses(
    (status = 200, description = "The order.", body = Order),
    (status = 404, description = "The merchant has no such order."),
))]
async fn refund(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    Json(body): Json<ReasonBody>,
) -> Result<Recording, Problem> {
    probity_txn::on(&app.pool, "refund_order")
        .run(async |tx| {
            let payment_no = body.payment_no.as_deref();
            let answer = shown(&store::refund(tx, world, &order_no, payment_no, &body.reason).await?);
            recorded(tx, &lease, answer).await
        })
        .await
        .map_err(write_failed)
}

/// Shows one order with its items.
#[utoipa::path(get, path = "/api/v1/orders/{order_no}", params(World), responses(
    (status = 200, description = "The order.", body = Order),
    (status = 404, description = "The merchant has no such order."),
))]
async fn get(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
) -> Result<Json<Order>, Problem> {
    store::get(&app.pool, world, &order_no).await?.map(Json).ok_or_else(|| Problem::not_found("order"))
}

/// Lists orders, newest first, without their items.
#[utoipa::path(get, path = "/api/v1/orders", params(World, Page), responses(
    (status = 200, description = "One page.", body = Orders),
    (status = 422, description = "The limit is out of bounds."),
))]
async fn list(
    State(app): State<App>,
    world: World,
    Query(page): Query<Page>,
) -> Result<Json<Orders>, Problem> {
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let selection = Selection { status: page.status, before: page.before, limit };
    let found = store::list(&app.pool, world, selection).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| full).map(|(id, _)| *id);
    Ok(Json(Orders { orders: found.into_iter().map(|(_, order)| order).collect(), next }))
}

/// Records the answer in the transaction that makes it true: both commit, or neither does.
async fn recorded(
    tx: &mut Tx<'_, Database>,
    lease: &Lease,
    answer: Recording,
) -> Result<Recording, WriteError> {
    lease.complete_in(&mut *tx, &answer).await?;
    Ok(answer)
}

fn shown(changed: &Changed) -> Recording {
    match changed {
        Changed::Order { order, .. } => success(StatusCode::OK, order),
        Changed::Missing => refusal(&Problem::not_found("order")),
        Changed::Refused(order) => refusal(
            &Problem::conflict(
                "order-state",
                format!("the order is {}: this cannot follow", order.status.as_str()),
            )
            .with("state", order.status.as_str()),
        ),
        Changed::OtherPayment(_) => refusal(&Problem::conflict(
            "other-payment",
            "the order has another amount, currency or payment number",
        )),
    }
}

fn cancelled(order_no: &str, status: Status, seen: bool) -> Recording {
    success(StatusCode::OK, &Cancelled { order_no, status, seen })
}

fn success(status: StatusCode, body: &impl Serialize) -> Recording {
    match serde_json::to_vec(body) {
        Ok(body) => answer(status, "application/json", body),
        Err(error) => refusal(&Problem::internal(&error)),
    }
}

fn refusal(problem: &Problem) -> Recording {
    answer(problem.status(), "application/problem+json", problem.body().to_string().into_bytes())
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Recording {
    Recording::new(status.as_u16()).header(header::CONTENT_TYPE.as_str(), content_type).body(body)
}

/// The reason for which a write did not commit.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Another attempt holds the key now; `?` rolls this one back.
    #[error(transparent)]
    Record(#[from] StoreError),
}

fn write_failed(error: probity_txn::Error<WriteError>) -> Problem {
    Problem::unavailable("the database", &error)
}
