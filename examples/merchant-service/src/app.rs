//! The routes of merchant-service.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use service_shell::{Credential, Guarded, Id, Json, Operators, Page, Problem, Role, ServiceToken, api};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::authenticate::{AuthenticateRequest, Authenticated, Authenticator};
use crate::caller::{Called, identify};
use crate::domain::{
    ApiKey, ApiKeys, IssuedKey, Merchant, Merchants, NewKey, NewMerchant, NewStatus, Registered,
};
use crate::store::Store;

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) operators: Operators,
}

/// All routes of the service; `service_token` guards the internal one.
pub fn routes(state: &AppState, service_token: &ServiceToken) -> OpenApiRouter<AppState> {
    let operators = OpenApiRouter::default()
        .routes(routes!(create))
        .routes(routes!(set_status))
        .operators(&state.operators, Role::Act)
        .merge(OpenApiRouter::default().routes(routes!(list)).operators(&state.operators, Role::See));
    let shared = OpenApiRouter::default()
        .routes(routes!(get))
        .routes(routes!(add_key, list_keys))
        .routes(routes!(rotate))
        .routes(routes!(revoke))
        .accepts(&[Credential::Signature, Credential::Operator], from_fn_with_state(state.clone(), identify));
    let services =
        OpenApiRouter::default().routes(routes!(authenticate)).require(Credential::Service, service_token);
    api("Merchants, their API keys, and whether a request was signed by one of them.")
        .routes(routes!(register))
        .merge(operators)
        .merge(shared)
        .merge(services)
}

/// A merchant registers itself.
///
/// The answer shows the merchant and exactly two keys, and their secrets never again.
#[utoipa::path(post, path = "/api/v1/merchants/register", responses(
    (status = 201, description = "Created.", body = Registered),
    (status = 409, description = "The email is taken."),
    (status = 422, description = "A field cannot be right."),
))]
async fn register(state: State<AppState>, new: Json<NewMerchant>) -> Result<Response, Problem> {
    create(state, new).await
}

/// An operator creates a merchant.
///
/// The answer shows the merchant and exactly two keys, and their secrets never again.
#[utoipa::path(post, path = "/api/v1/merchants", responses(
    (status = 201, description = "Created.", body = Registered),
    (status = 409, description = "The email is taken."),
    (status = 422, description = "A field cannot be right."),
))]
async fn create(State(state): State<AppState>, Json(new): Json<NewMerchant>) -> Result<Response, Problem> {
    let (merchant, api_keys) = state.store.create(&new.checked()?).await?;
    let location = format!("/api/v1/merchants/{}", merchant.id);
    let body = Json(Registered { merchant, api_keys });
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], secret(body)).into_response())
}

/// Shows a merchant to itself, and any merchant to an operator.
#[utoipa::path(get, path = "/api/v1/merchants/{id}", params(("id" = Id, Path)), responses(
    (status = 200, description = "The merchant.", body = Merchant),
    (status = 404, description = "There is none, or the caller may not see it."),
))]
async fn get(
    State(state): State<AppState>,
    Extension(caller): Called,
    Path(id): Path<Id>,
) -> Result<Json<Merchant>, Problem> {
    let found = if caller.sees(id) { state.store.get(id).await? } else { None };
    found.map(Json).ok_or_else(|| Problem::not_found("merchant"))
}

/// Lists merchants in the order of creation; `next` is the `after` of the next page.
#[utoipa::path(get, path = "/api/v1/merchants", params(Page), responses(
    (status = 200, description = "One page.", body = Merchants),
    (status = 422, description = "The limit is out of bounds."),
))]
async fn list(State(state): State<AppState>, Query(page): Query<Page>) -> Result<Json<Merchants>, Problem> {
    let limit = page.limit()?;
    let merchants = state.store.list(page.after, limit).await?;
    let full = i64::try_from(merchants.len()).is_ok_and(|found| found == limit);
    let next = merchants.last().filter(|_| full).map(|last| last.id);
    Ok(Json(Merchants { merchants, next }))
}

/// Suspends, reactivates or closes a merchant; closed is for good.
#[utoipa::path(put, path = "/api/v1/merchants/{id}/status", params(("id" = Id, Path)), responses(
    (status = 200, description = "The merchant.", body = Merchant),
    (status = 404, description = "There is no such merchant."),
    (status = 409, description = "It is closed."),
))]
async fn set_status(
    State(state): State<AppState>,
    Path(id): Path<Id>,
    Json(new): Json<NewStatus>,
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

/// Adds a key of a mode, up to ten active ones.
#[utoipa::path(post, path = "/api/v1/api-keys", params(
    ("X-Merchant-Id" = Option<Id>, Header, description = "Whose keys; needed when an operator calls.")
), responses(
    (status = 201, description = "The key with its secret, shown here and never again.", body = IssuedKey),
    (status = 403, description = "A production key was asked for with a test key."),
    (status = 409, description = "There are ten active keys of this mode."),
))]
async fn add_key(
    State(state): State<AppState>,
    Extension(caller): Called,
    Json(new): Json<NewKey>,
) -> Result<Response, Problem> {
    caller.may_add(new.mode)?;
    let issued = state.store.add_key(caller.merchant()?, new.mode).await?;
    Ok((StatusCode::CREATED, secret(Json(issued))).into_response())
}

/// Lists the keys of a merchant, without secrets; a test key sees no production keys.
#[utoipa::path(get, path = "/api/v1/api-keys", params(
    ("X-Merchant-Id" = Option<Id>, Header, description = "Whose keys; needed when an operator calls.")
), responses(
    (status = 200, description = "The keys.", body = ApiKeys),
))]
async fn list_keys(
    State(state): State<AppState>,
    Extension(caller): Called,
) -> Result<Json<ApiKeys>, Problem> {
    let mut api_keys = state.store.keys(caller.merchant()?).await?;
    api_keys.retain(|key| caller.sees_mode(key.mode));
    Ok(Json(ApiKeys { api_keys }))
}

/// Replaces the secret of a key; the old one stops at once.
#[utoipa::path(post, path = "/api/v1/api-keys/{id}/rotate", params(("id" = Id, Path)), responses(
    (status = 200, description = "The key with its secret, shown here and never again.", body = IssuedKey),
    (status = 404, description = "There is none, or the caller may not see it."),
    (status = 409, description = "The key is revoked."),
))]
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

/// Ends a key, unless it is the last active one of its mode.
#[utoipa::path(post, path = "/api/v1/api-keys/{id}/revoke", params(("id" = Id, Path)), responses(
    (status = 200, description = "The revoked key.", body = ApiKey),
    (status = 404, description = "There is none, or the caller may not see it."),
    (status = 409, description = "It is the last active key of its mode."),
))]
async fn revoke(
    State(state): State<AppState>,
    Extension(caller): Called,
    Path(id): Path<Id>,
) -> Result<Json<ApiKey>, Problem> {
    let key = caller.own(state.store.key(id).await?)?;
    state.store.revoke(&key).await.map(Json)
}

/// Tells another service whether a request was signed by a merchant, just now, for the first time.
#[utoipa::path(post, path = "/internal/v1/authenticate", responses(
    (status = 200, description = "The merchant that signed it.", body = Authenticated),
    (status = 429, description = "Ten failures within 15 minutes lock the key for this address."),
))]
async fn authenticate(
    State(state): State<AppState>,
    Json(request): Json<AuthenticateRequest>,
) -> Result<Json<Authenticated>, Problem> {
    state.authenticator.authenticate(&request).await.map(Json)
}

/// A response that shows a secret must not be kept by anything on its way.
fn secret(body: impl IntoResponse) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], body)
}
