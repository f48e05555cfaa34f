//! The routes of merchant-service.

use axum::extract::{Path, Query, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use service_shell::{Id, JsonBody, Problem, Routes, ServiceToken};

use crate::authenticate::{AuthenticateRequest, Authenticated, Authenticator};
use crate::caller::{Called, identify};
use crate::domain::{IssuedKey, Merchant, MerchantStatus, Mode, NewMerchant};
use crate::store::Store;

/// The description of every route, held against the router by a test.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) operator_token: ServiceToken,
}

/// All routes of the service; `service_token` guards the internal one.
pub fn routes(state: &AppState, service_token: &ServiceToken) -> Routes<AppState> {
    let operators = Routes::new()
        .post("/api/v1/merchants", create)
        .get("/api/v1/merchants", list)
        .put("/api/v1/merchants/{id}/status", set_status)
        .require(&state.operator_token);
    let shared = Routes::new()
        .get("/api/v1/merchants/{id}", get)
        .post("/api/v1/api-keys", add_key)
        .get("/api/v1/api-keys", list_keys)
        .post("/api/v1/api-keys/{id}/rotate", rotate)
        .post("/api/v1/api-keys/{id}/revoke", revoke)
        .map(|router| router.route_layer(from_fn_with_state(state.clone(), identify)));
    let services = Routes::new().post("/internal/v1/authenticate", authenticate).require(service_token);
    Routes::new().post("/api/v1/merchants/register", create).merge(operators).merge(shared).merge(services)
}

async fn create(
    State(state): State<AppState>,
    JsonBody(new): JsonBody<NewMerchant>,
) -> Result<Response, Problem> {
    let (merchant, keys) = state.store.create(&new.checked()?).await?;
    let location = format!("/api/v1/merchants/{}", merchant.id);
    let body = Json(json!({"merchant": merchant, "api_keys": keys}));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], secret(body)).into_response())
}

async fn get(
    State(state): State<AppState>,
    Extension(caller): Called,
    Path(id): Path<Id>,
) -> Result<Json<Merchant>, Problem> {
    let found = if caller.sees(id) { state.store.get(id).await? } else { None };
    found.map(Json).ok_or_else(|| Problem::not_found("merchant"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<Id>,
    limit: Option<i64>,
}

async fn list(State(state): State<AppState>, Query(page): Query<Page>) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(50);
    if !(1..=100).contains(&limit) {
        return Err(Problem::invalid("limit", "must be from 1 to 100"));
    }
    let merchants = state.store.list(page.after, limit).await?;
    let full = i64::try_from(merchants.len()).is_ok_and(|found| found == limit);
    let next = merchants.last().filter(|_| full).map(|last| last.id);
    Ok(Json(json!({"merchants": merchants, "next": next})).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStatus {
    status: MerchantStatus,
}

async fn set_status(
    State(state): State<AppState>,
    Path(id): Path<Id>,
    JsonBody(new): JsonBody<NewStatus>,
) -> Result<Json<Merchant>, Problem> {
    if let Some(merchant) = state.store.set_status(id, new.status).await? {
        return Ok(Json(merchant));
    }
    match state.store.get(id).await? {
        None => Err(Problem::not_found("merchant")),
        Some(_) => {
            Err(Problem::conflict("merchant-closed", "a closed merchant stays closed: register a new one"))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    mode: Mode,
}

async fn add_key(
    State(state): State<AppState>,
    Extension(caller): Called,
    JsonBody(new): JsonBody<NewKey>,
) -> Result<Response, Problem> {
    caller.may_manage(new.mode)?;
    let issued = state.store.add_key(caller.merchant()?, new.mode).await?;
    Ok((StatusCode::CREATED, secret(Json(issued))).into_response())
}

async fn list_keys(State(state): State<AppState>, Extension(caller): Called) -> Result<Response, Problem> {
    let keys = state.store.keys(caller.merchant()?).await?;
    Ok(Json(json!({"api_keys": keys})).into_response())
}

async fn rotate(
    State(state): State<AppState>,
    Extension(caller): Called,
    Path(id): Path<Id>,
) -> Result<Response, Problem> {
    let key = caller.own(state.store.key(id).await?)?;
    let issued: Option<IssuedKey> = state.store.rotate(id, key.mode).await?;
    let issued = issued
        .ok_or_else(|| Problem::conflict("key-revoked", "a revoked key stays revoked: create a new one"))?;
    Ok(secret(Json(issued)).into_response())
}

async fn revoke(
    State(state): State<AppState>,
    Extension(caller): Called,
    Path(id): Path<Id>,
) -> Result<Response, Problem> {
    let key = caller.own(state.store.key(id).await?)?;
    Ok(Json(state.store.revoke(&key).await?).into_response())
}

async fn authenticate(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<AuthenticateRequest>,
) -> Result<Json<Authenticated>, Problem> {
    state.authenticator.authenticate(&request).await.map(Json)
}

/// A response that shows a secret must not be kept by anything on its way.
fn secret(body: impl IntoResponse) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], body)
}

#[cfg(test)]
mod tests {
    use service_shell::{Pool, SHELL_ROUTES, operations};

    use super::*;
    use crate::sealing::Sealer;

    #[tokio::test]
    async fn the_openapi_document_describes_exactly_the_routes() {
        let pool = Pool::connect_lazy_with(Default::default());
        let sealer = Sealer::new(&[0; 32]);
        let state = AppState {
            store: Store::new(pool.clone(), sealer.clone()),
            authenticator: Authenticator::new(pool, sealer).unwrap(),
            operator_token: ServiceToken::new("0123456789abcdef"),
        };
        let mut served = routes(&state, &state.operator_token).listed().clone();
        served.extend(SHELL_ROUTES.map(str::to_owned));
        assert_eq!(operations(OPENAPI), served);
    }
}
