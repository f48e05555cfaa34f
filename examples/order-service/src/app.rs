//! The routes of the order service. Each write and the record of its answer commit in one transaction, so a
//! repeated request changes nothing and gets the first answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::{Json, Router};
use http::request::Parts;
use http::{StatusCode, header};
use probity_idempotency::{
    Effects, IdempotencyLayer, IdempotencyManager, Lease, Recording, Refusal, Scope, StoreError,
};
use probity_txn::Tx;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service_shell::{
    Clock, Database, Drain, Health, Id, JsonBody, Mode, Pool, Problem, Purging, Routes, Settings, Shell,
    StartError, World, database,
};

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
    let shell = Shell::new(settings.name, Health::named(settings.name).database(&pool), crate::OPENAPI)?;
    let tasks = idempotent.tasks();
    let expiring = tokio::spawn(keep_expiring(pool.clone(), order_expiry, clock));
    let drain = purging
        .start(Drain::nothing())
        .then("requests", move || async move { tasks.drain().await })
        .then("expiring", move || async move { expiring.abort() })
        .close(&pool);
    let router = routes()
        .map(|router| router.route_layer(idempotent))
        .require(&settings.service_token)
        .into_router()
        .with_state(App { pool });
    Ok((shell.wrap(router), drain))
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

/// All routes; [`start`] puts idempotency and the service token around them.
pub(crate) fn routes() -> Routes<App> {
    Routes::new()
        .post("/api/v1/orders", create)
        .get("/api/v1/orders", list)
        .get("/api/v1/orders/{order_no}", get)
        .post("/api/v1/orders/{order_no}/pay", pay)
        .post("/api/v1/orders/{order_no}/cancel", cancel)
        .post("/api/v1/orders/{order_no}/refund", refund)
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayBody {
    payment_no: String,
    amount: i64,
    currency: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: String,
    payment_no: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<i64>,
    before: Option<Id>,
    status: Option<Status>,
}

async fn create(
    State(app): State<App>,
    world: World,
    lease: Lease,
    JsonBody(body): JsonBody<OrderBody>,
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

async fn pay(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    JsonBody(body): JsonBody<PayBody>,
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

async fn cancel(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    JsonBody(body): JsonBody<ReasonBody>,
) -> Result<Recording, Problem> {
    let order_no = number("order_no", order_no)?;
    probity_txn::on(&app.pool, "cancel_order")
        .run(async |tx| {
            let payment_no = body.payment_no.as_deref();
            let answer = match store::cancel(tx, world, &order_no, payment_no, &body.reason).await? {
                // The barrier is set: an order with this number can no longer be created.
                Changed::Missing => success(
                    StatusCode::OK,
                    &json!({"order_no": order_no, "status": "cancelled", "seen": false}),
                ),
                Changed::Order { order, .. } => success(
                    StatusCode::OK,
                    &json!({"order_no": order_no, "status": order.status, "seen": true}),
                ),
                other => shown(&other),
            };
            recorded(tx, &lease, answer).await
        })
        .await
        .map_err(write_failed)
}

async fn refund(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
    lease: Lease,
    JsonBody(body): JsonBody<ReasonBody>,
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

async fn get(
    State(app): State<App>,
    world: World,
    Path(order_no): Path<String>,
) -> Result<Json<Order>, Problem> {
    store::get(&app.pool, world, &order_no).await?.map(Json).ok_or_else(|| Problem::not_found("order"))
}

async fn list(
    State(app): State<App>,
    world: World,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let selection = Selection { status: page.status, before: page.before, limit };
    let found = store::list(&app.pool, world, selection).await?;
    let full = i64::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| full).map(|(id, _)| *id);
    let orders: Vec<_> = found.into_iter().map(|(_, order)| order).collect();
    Ok(Json(json!({"orders": orders, "next": next})))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_exactly_the_routes() {
        assert_eq!(*routes().listed(), service_shell::operations(crate::OPENAPI));
    }
}
