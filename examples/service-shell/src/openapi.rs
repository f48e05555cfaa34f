//! The OpenAPI document of a service, made of its handlers.
//!
//! `utoipa` reads paths, parameters, bodies and answers from the handlers and their types. This module adds what the
//! shell does to every route: who may call it, its `Idempotency-Key`, and the form of its errors. Each of these stands
//! in the router and in the document by the same call, so neither can be changed alone.

use std::convert::Infallible;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::Route;
use tower::{Layer, Service};
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, Content, Info, OpenApi, PathItem, Paths, Ref, RefOr, Required, Response, ResponseBuilder,
};
use utoipa_axum::router::OpenApiRouter;

use crate::operators::admit;
use crate::{Operators, PROBLEM_JSON, Role, ServiceToken};

const PROBLEM: &str = "Problem";

/// A proof of identity that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `SERVICE_TOKEN` as a bearer: another service of the platform.
    Service,
    /// The bearer of a person whom `OPERATORS` names.
    Operator,
    /// A merchant's signature.
    Signature,
    /// A channel's signature.
    Webhook,
}

impl Credential {
    fn name(self) -> &'static str {
        match self {
            Credential::Service => "service",
            Credential::Operator => "operator",
            Credential::Signature => "signature",
            Credential::Webhook => "webhook",
        }
    }

    fn scheme(self) -> SecurityScheme {
        let bearer = |whose: &str| {
            let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
            SecurityScheme::Http(bearer.description(Some(whose)).build())
        };
        match self {
            Credential::Service => bearer("SERVICE_TOKEN, shared by the services of the platform"),
            Credential::Operator => bearer("The token of a person whom OPERATORS names"),
            Credential::Signature => SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "X-Signature",
                "With X-API-Key, X-Timestamp and X-Nonce: lower-case hex HMAC-SHA256, with the key's secret, over \
                 method, path and query, timestamp, nonce and hex SHA-256 of the body, joined by line feeds.",
            ))),
            Credential::Webhook => SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                "X-Webhook-Signature",
                "Lower-case hex HMAC-SHA256, with CHANNEL_WEBHOOK_SECRET, over X-Webhook-Timestamp, a line feed and \
                 the body.",
            ))),
        }
    }
}

/// Starts the routes of a service; `description` becomes the description of its document.
///
/// # Examples
/// ```
/// use service_shell::{Credential, Guarded, ServiceToken, api};
/// use utoipa_axum::routes;
///
/// /// Says hello.
/// #[utoipa::path(get, path = "/hello", responses((status = 200, body = String)))]
/// async fn hello() -> &'static str {
///     "hello"
/// }
///
/// let token = ServiceToken::new("0123456789abcdef");
/// let routes = api::<()>("Greets.").routes(routes!(hello)).require(Credential::Service, &token);
/// assert!(routes.get_openapi().paths.paths.contains_key("/hello"));
/// ```
pub fn api<S: Clone + Send + Sync + 'static>(description: &str) -> OpenApiRouter<S> {
    let mut info = Info::new("", env!("CARGO_PKG_VERSION"));
    info.description = Some(description.to_owned());
    OpenApiRouter::with_openapi(OpenApi::new(info, Paths::new()))
}

/// Conditions of all routes that a router has so far: a layer, and what the document says of it.
pub trait Guarded: Sized {
    /// Lets in only callers with this bearer token.
    #[must_use]
    fn require(self, credential: Credential, token: &ServiceToken) -> Self;

    /// Lets in only operators with this role; handlers may extract the [`Operator`](crate::Operator).
    #[must_use]
    fn operators(self, operators: &Operators, role: Role) -> Self;

    /// Adds a layer that lets in callers with one of these credentials.
    #[must_use]
    fn accepts<L: RouteLayer>(self, credentials: &[Credential], layer: L) -> Self
    where
        L::Service: RouteService;

    /// Adds a layer that asks every route but `GET` for an `Idempotency-Key`.
    #[must_use]
    fn keyed<L: RouteLayer>(self, layer: L) -> Self
    where
        L::Service: RouteService;
}

/// A layer that axum takes around a route.
pub trait RouteLayer: Layer<Route> + Clone + Send + Sync + 'static {}
impl<L: Layer<Route> + Clone + Send + Sync + 'static> RouteLayer for L {}

/// The service that such a layer makes.
pub trait RouteService:
    Service<
        Request,
        Response: IntoResponse + 'static,
        Error: Into<Infallible> + 'static,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}
impl<S> RouteService for S where
    S: Service<
            Request,
            Response: IntoResponse + 'static,
            Error: Into<Infallible> + 'static,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

impl<S: Clone + Send + Sync + 'static> Guarded for OpenApiRouter<S> {
    fn require(self, credential: Credential, token: &ServiceToken) -> OpenApiRouter<S> {
        let token = token.clone();
        let check = move |request: Request, next: Next| {
            let allowed = token.check(request.headers());
            async move {
                match allowed {
                    Ok(()) => next.run(request).await,
                    Err(problem) => problem.into_response(),
                }
            }
        };
        self.accepts(&[credential], from_fn::<_, (Request,)>(check))
    }

    fn operators(self, operators: &Operators, role: Role) -> OpenApiRouter<S> {
        let operators = operators.clone();
        let check = move |request: Request, next: Next| admit(operators.clone(), role, request, next);
        let mut router = self.accepts(&[Credential::Operator], from_fn::<_, (Request,)>(check));
        for (_, operation) in operations_mut(router.get_openapi_mut()) {
            refusal(operation, "403", &format!("The operator does not have the role {role}."));
        }
        router
    }

    fn accepts<L: RouteLayer>(self, credentials: &[Credential], layer: L) -> OpenApiRouter<S>
    where
        L::Service: RouteService,
    {
        let mut router = self.route_layer(layer);
        let api = router.get_openapi_mut();
        let components = api.components.get_or_insert_with(Components::new);
        for credential in credentials {
            components.add_security_scheme(credential.name(), credential.scheme());
        }
        for (_, operation) in operations_mut(api) {
            // A route behind two layers needs what both ask for.
            let before = operation.security.take().unwrap_or_else(|| vec![SecurityRequirement::default()]);
            let both = before.iter().flat_map(|before| {
                credentials.iter().map(|one| before.clone().add(one.name(), Vec::<String>::new()))
            });
            operation.security = Some(both.collect());
            refusal(operation, "401", "Authentication failed; the answer does not say why.");
        }
        router
    }

    fn keyed<L: RouteLayer>(self, layer: L) -> OpenApiRouter<S>
    where
        L::Service: RouteService,
    {
        let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some("The same key and body get the same answer, and the work is done once."))
            .schema(Some(text))
            .build();
        let mut router = self.route_layer(layer);
        for (method, operation) in operations_mut(router.get_openapi_mut()) {
            if method != "GET" {
                operation.parameters.get_or_insert_default().push(key.clone().into());
                refusal(
                    operation,
                    "409",
                    "The first request with this key still runs, or the data does not allow it.",
                );
                refusal(operation, "422", "The key came with another body, or a field cannot be right.");
            }
        }
        router
    }
}

/// Completes a document: its title, the form of every error, and nothing that says the same of two routes.
pub(crate) fn complete(api: &mut OpenApi, service: &str) {
    service.clone_into(&mut api.info.title);
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let problem = ObjectBuilder::new()
        .property("type", text().description(Some("The address of the kind of problem.")))
        .property("title", text())
        .property("status", ObjectBuilder::new().schema_type(Type::Integer))
        .property("detail", text().description(Some("What to fix.")))
        .description(Some("RFC 9457; some kinds have members of their own."));
    let problem =
        ["type", "title", "status", "detail"].into_iter().fold(problem, |schema, name| schema.required(name));
    let components = api.components.get_or_insert_with(Components::new);
    components.schemas.insert(PROBLEM.to_owned(), problem.into());
    for (path, item) in &mut api.paths.paths {
        for (_, operation) in methods(item) {
            add_path_parameters(operation, path);
        }
    }
    for (_, operation) in operations_mut(api) {
        // Names of functions are not unique, and no caller needs them.
        operation.operation_id = None;
        operation.tags = None;
        for (status, response) in &mut operation.responses.responses {
            if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response) {
                described(response);
            }
        }
        refusal(operation, "default", "Refused; `detail` says what to fix.");
    }
}

/// Adds the parameters of the path that the handler does not describe: they are text.
fn add_path_parameters(operation: &mut Operation, path: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let described = parameters.iter().any(|known| matches!(known, RefOr::T(known) if known.name == name));
        if !described {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            let text = ObjectBuilder::new().schema_type(Type::String);
            parameters.push(parameter.required(Required::True).schema(Some(text)).build().into());
        }
    }
}

fn refusal(operation: &mut Operation, status: &str, description: &str) {
    let problem = || {
        let mut response = ResponseBuilder::new().description(description).build();
        described(&mut response);
        RefOr::T(response)
    };
    operation.responses.responses.entry(status.to_owned()).or_insert_with(problem);
}

/// Gives a response without content the form of every error.
fn described(response: &mut Response) {
    if response.content.is_empty() {
        let problem = Content::new(Some(Ref::from_schema_name(PROBLEM)));
        response.content.insert(PROBLEM_JSON.to_owned(), problem.into());
    }
}

fn operations_mut(api: &mut OpenApi) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    api.paths.paths.values_mut().flat_map(methods)
}

fn methods(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [("GET", get), ("PUT", put), ("POST", post), ("DELETE", delete), ("PATCH", patch)];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}
