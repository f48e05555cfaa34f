//! A router that remembers what it serves.
//!
//! axum's router cannot be asked for its routes; this one can, so a test holds `openapi.json` against it.

use std::collections::BTreeSet;
use std::fmt;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::operators::admit;
use crate::{Operators, Role, ServiceToken};

/// Routes under construction, with their list.
#[must_use]
pub struct Routes<S> {
    router: Router<S>,
    listed: BTreeSet<String>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Routes<S> {
        Routes { router: Router::new(), listed: BTreeSet::new() }
    }

    /// `GET path`.
    pub fn get<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Routes<S> {
        self.mount("GET", path, on(MethodFilter::GET, handler))
    }

    /// `POST path`.
    pub fn post<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Routes<S> {
        self.mount("POST", path, on(MethodFilter::POST, handler))
    }

    /// `PUT path`.
    pub fn put<H: Handler<T, S>, T: 'static>(self, path: &'static str, handler: H) -> Routes<S> {
        self.mount("PUT", path, on(MethodFilter::PUT, handler))
    }

    /// One method of a path with layers of its own, such as idempotency: `post(create).layer(idempotent)`.
    pub fn mount(mut self, method: &'static str, path: &'static str, routes: MethodRouter<S>) -> Routes<S> {
        self.listed.insert(format!("{method} {path}"));
        self.router = self.router.route(path, routes);
        self
    }

    /// Everything so far only for callers with this bearer token.
    pub fn require(mut self, token: &ServiceToken) -> Routes<S> {
        let token = token.clone();
        self.router = self.router.route_layer(from_fn(move |request: Request, next: Next| {
            let token = token.clone();
            async move {
                match token.check(request.headers()) {
                    Ok(()) => next.run(request).await,
                    Err(problem) => problem.into_response(),
                }
            }
        }));
        self
    }

    /// Everything so far only for operators with this role; handlers may extract the [`Operator`](crate::Operator).
    pub fn operators(mut self, operators: &Operators, role: Role) -> Routes<S> {
        let operators = operators.clone();
        self.router = self.router.route_layer(from_fn(move |request: Request, next: Next| {
            admit(operators.clone(), role, request, next)
        }));
        self
    }

    /// Changes the router underneath, such as adding a layer to everything so far.
    pub fn map(mut self, change: impl FnOnce(Router<S>) -> Router<S>) -> Routes<S> {
        self.router = change(self.router);
        self
    }

    /// Adds the routes of another.
    pub fn merge(mut self, other: Routes<S>) -> Routes<S> {
        self.router = self.router.merge(other.router);
        self.listed.extend(other.listed);
        self
    }

    /// `POST /api/v1/payments` and so on, sorted.
    #[must_use]
    pub fn listed(&self) -> &BTreeSet<String> {
        &self.listed
    }

    /// The router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Routes<S> {
        Routes::new()
    }
}

impl<S> fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("listed", &self.listed).finish_non_exhaustive()
    }
}
