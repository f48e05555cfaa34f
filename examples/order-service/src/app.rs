//! The routes of the order service. Each write and the record of its answer commit in one transaction, so a
//! repeated request changes nothing and gets the first answer.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use probity_idempotency::{Effects, IdempotencyLayer, Lease, Refusal, Scope, StoreError};
use serde::Deserialize;
use serde_json::{Value, json};
use service_shell::{
    Database, Drain, Health, JsonBody, MERCHANT_HEADER, MerchantId, Pool, Problem, Routes, ServiceToken, Settings,
    Shell, StartError, database,
};

use crate::domain::{NewOrder, Order, OrderBody, number};
use crate::reply::Reply;
use crate::store::{self, Changed, Created, Payment};

#[cfg(not(feature = "postgres"))]
type Records = probity_idempotency::SqliteStore;
#[cfg(feature = "postgres")]
type Records = probity_idempotency::PostgresStore;

/// What the handlers share.
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
    let pool = database::open(&settings).await?;
    store::SCHEMA.apply(&pool).await?;
    let records =
        Records::new(pool.clone()).await.map_err(|error| StartError::other("idempotency records", error))?;
    let shell = Shell::new(settings.name, Health::named(settings.name).database(&pool), crate::OPENAPI)?;
    let drain = Drain::nothing().close(&pool);
    let idempotent = IdempotencyLayer::new(Arc::new(records)).scope(scope).effects(Effects::Local);
    let router = routes(&settings.service_token)
        .map(|router| router.route_layer(idempotent))
        .require(&settings.service_token)
        .into_router()
        .with_state(App { pool });
    Ok((shell.wrap(router), drain))
}

/// All routes; the caller adds idempotency and the service token.
pub(crate) fn routes() -> Routes<App> {
    Routes::new()
        .post("/orders", create)
        .get("/orders", list)
        .get("/orders/{order_no}", get)
        .post("/orders/{order_no}/pay", pay)
        .post("/orders/{order_no}/cancel", cancel)
        .post("/orders/{order_no}/refund", refund)
}
