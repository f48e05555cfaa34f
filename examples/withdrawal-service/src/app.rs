//! The routes of withdrawal-service: for merchants behind the service token, for operators behind tokens of their own.

mod accounts;
mod balances;
mod withdrawals;

use axum::extract::FromRef;
use http::request::Parts;
use http::{StatusCode, header};
use probity_idempotency::{IdempotencyLayer, Recording, Refusal, Scope};
use saga_operations::Operations;
use serde::Serialize;
use service_shell::{
    Credential, Guarded, Operator, Operators, Pool, Problem, Role, ServiceToken, World, api,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::payouts::Payouts;

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) pool: Pool,
    pub(crate) payouts: Payouts,
    pub(crate) operations: Operations,
}

impl FromRef<App> for Operations {
    fn from_ref(app: &App) -> Operations {
        app.operations.clone()
    }
}

/// The bearers and the idempotency of the two kinds of callers.
#[derive(Clone, Debug)]
pub(crate) struct Guards {
    pub(crate) service_token: ServiceToken,
    pub(crate) operators: Operators,
    pub(crate) merchants: IdempotencyLayer,
    pub(crate) operators_idempotency: IdempotencyLayer,
}

/// All routes.
pub(crate) fn routes(guards: &Guards) -> OpenApiRouter<App> {
    let merchants = OpenApiRouter::default()
        .routes(routes!(accounts::create, accounts::list))
        .routes(routes!(accounts::set_default))
        .routes(routes!(withdrawals::create, withdrawals::list))
        .routes(routes!(withdrawals::get))
        .routes(routes!(withdrawals::cancel))
        .keyed(guards.merchants.clone())
        .require(Credential::Service, &guards.service_token);
    let services = OpenApiRouter::default()
        .routes(routes!(balances::list))
        .routes(routes!(balances::credit))
        .routes(routes!(balances::debit))
        .routes(routes!(balances::cancel_debit))
        .routes(routes!(balances::freeze))
        .routes(routes!(balances::confirm_freeze))
        .routes(routes!(balances::cancel_freeze))
        .require(Credential::Service, &guards.service_token);
    let approvers = OpenApiRouter::default()
        .routes(routes!(withdrawals::approve))
        .routes(routes!(withdrawals::reject))
        .keyed(guards.operators_idempotency.clone())
        .operators(&guards.operators, Role::Approve);
    let actors = OpenApiRouter::default()
        .routes(routes!(withdrawals::execute))
        .keyed(guards.operators_idempotency.clone())
        .operators(&guards.operators, Role::Act);
    let seers = OpenApiRouter::default()
        .routes(routes!(withdrawals::waiting))
        .routes(routes!(withdrawals::show))
        .operators(&guards.operators, Role::See);
    api("Merchants' bank accounts, balances and withdrawals. Money is an integer of minor units.")
        .merge(merchants)
        .merge(services)
        .merge(approvers)
        .merge(actors)
        .merge(seers)
        .merge(saga_operations::routes(&guards.operators))
}

/// Keys belong to the merchant a call is about, and to the mode. The service is named because services may share a database.
pub(crate) fn merchant_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let World { merchant, mode } = World::from_headers(&parts.headers)
        .map_err(|problem| Refusal::new(problem.status(), problem.detail()))?;
    Ok(Scope::new(format!("withdrawal-service:merchant:{merchant}:{mode}"))?)
}

/// Keys belong to the operator who sent the request.
pub(crate) fn operator_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let operator = parts.extensions.get::<Operator>().ok_or_else(Refusal::unauthenticated)?;
    Ok(Scope::new(format!("withdrawal-service:operator:{}", operator.name()))?)
}

/// The answer as it is sent now and to every repetition.
fn answer(status: StatusCode, body: &impl Serialize) -> Result<Recording, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let recording = Recording::new(status.as_u16());
    Ok(recording.header(header::CONTENT_TYPE.as_str(), "application/json").body(body))
}
