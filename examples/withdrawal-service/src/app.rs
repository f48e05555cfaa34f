//! The routes of withdrawal-service: for merchants behind the service token, for approvers behind the
//! operator's token.

mod accounts;
mod withdrawals;

use http::request::Parts;
use http::{StatusCode, header};
use probity_idempotency::{IdempotencyLayer, Recording, Refusal, Scope};
use serde::Serialize;
use service_shell::{MerchantId, Pool, Problem, Routes, ServiceToken};

use crate::payouts::Payouts;

/// The description of every route, held against the router by a test.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) pool: Pool,
    pub(crate) payouts: Payouts,
}

/// The two bearers and the idempotency of the two kinds of callers.
#[derive(Clone, Debug)]
pub(crate) struct Guards {
    pub(crate) service_token: ServiceToken,
    pub(crate) operator_token: ServiceToken,
    pub(crate) merchants: IdempotencyLayer,
    pub(crate) approvers: IdempotencyLayer,
}

/// All routes.
pub(crate) fn routes(guards: &Guards) -> Routes<App> {
    let merchants = Routes::new()
        .post("/api/v1/bank-accounts", accounts::create)
        .get("/api/v1/bank-accounts", accounts::list)
        .post("/api/v1/bank-accounts/{id}/set-default", accounts::set_default)
        .get("/api/v1/balances", accounts::balances)
        .post("/internal/v1/credits", accounts::credit)
        .post("/api/v1/withdrawals", withdrawals::create)
        .get("/api/v1/withdrawals", withdrawals::list)
        .get("/api/v1/withdrawals/{id}", withdrawals::get)
        .post("/api/v1/withdrawals/{id}/cancel", withdrawals::cancel)
        .map(|router| router.route_layer(guards.merchants.clone()))
        .require(&guards.service_token);
    let approvers = Routes::new()
        .post("/api/v1/withdrawals/{id}/approve", withdrawals::approve)
        .post("/api/v1/withdrawals/{id}/reject", withdrawals::reject)
        .post("/api/v1/withdrawals/{id}/execute", withdrawals::execute)
        .post("/api/v1/withdrawals/{id}/retry", withdrawals::retry)
        .map(|router| router.route_layer(guards.approvers.clone()))
        .require(&guards.operator_token);
    merchants.merge(approvers)
}

/// Keys belong to the merchant a call is about. The service is named because services may share a database.
pub(crate) fn merchant_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let MerchantId(merchant) = MerchantId::from_headers(&parts.headers)
        .map_err(|problem| Refusal::new(problem.status(), problem.detail()))?;
    Ok(Scope::new(format!("withdrawal-service:merchant:{merchant}"))?)
}

/// Approvers share their keys: they are one team behind one token.
pub(crate) fn approver_scope(_: &Parts) -> Result<Scope, Refusal> {
    Ok(Scope::new("withdrawal-service:approvers")?)
}

/// The answer as it is sent now and to every repetition.
fn answer(status: StatusCode, body: &impl Serialize) -> Result<Recording, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    let recording = Recording::new(status.as_u16());
    Ok(recording.header(header::CONTENT_TYPE.as_str(), "application/json").body(body))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use probity_idempotency::MemoryStore;
    use service_shell::{SHELL_ROUTES, operations};

    use super::*;

    #[test]
    fn the_openapi_document_describes_exactly_the_routes() {
        let records = Arc::new(MemoryStore::new());
        let token = ServiceToken::new("0123456789abcdef");
        let guards = Guards {
            service_token: token.clone(),
            operator_token: token,
            merchants: IdempotencyLayer::new(records.clone()).scope(merchant_scope),
            approvers: IdempotencyLayer::new(records).scope(approver_scope),
        };
        let mut served = routes(&guards).listed().clone();
        served.extend(SHELL_ROUTES.map(str::to_owned));
        assert_eq!(operations(OPENAPI), served);
    }
}
