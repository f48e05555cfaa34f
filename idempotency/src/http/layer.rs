//! The layer and its service: builder, readiness, and which requests are guarded at all.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::ReplayBody;
use super::config::{Config, Refusal, ScopeFn};
use super::problem::Problem;
use super::run::{self, Tasks};
use super::wait::Waiting;
use super::{request, run::Run};
use crate::store::timed::Timed;
use crate::{Effects, HashKey, IdempotencyManager, Policy, Recover, Scope};

/// A layer nobody has told whose keys these are. It is not a [`Layer`] yet, so an application without a scope does not
/// compile.
#[derive(Debug, Clone, Copy)]
pub struct Unscoped;

/// A layer that derives the scope of every request.
#[derive(Clone)]
pub struct Scoped(Arc<ScopeFn>);

impl fmt::Debug for Scoped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scoped")
    }
}

/// Makes a service safe to retry; what the wire says is in [the guide](crate::guide::wire).
///
/// ```
/// # use std::sync::{Arc, OnceLock};
/// use probity_idempotency::{Effects, IdempotencyLayer, MemoryStore, Refusal, Scope};
///
/// #[derive(Clone)]
/// struct Merchant(String); // put into the extensions by authentication
///
/// let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new()))
///     .scope(|parts| {
///         let merchant = parts.extensions.get::<Merchant>().ok_or_else(Refusal::unauthenticated)?;
///         Ok(Scope::new(format!("merchant:{}", merchant.0))?)
///     })
///     .effects(Effects::Marked);
/// ```
///
/// Without a scope it is not a layer, and this does not compile; with `.single_tenant()` after `new(..)` it does:
///
/// ```compile_fail
/// # use std::sync::{Arc, OnceLock};
/// # use probity_idempotency::{IdempotencyLayer, MemoryStore};
/// # use tower::ServiceBuilder;
/// ServiceBuilder::new()
///     .layer(IdempotencyLayer::new(Arc::new(MemoryStore::new())))
///     .service_fn(async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
///         Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
///     });
/// ```
///
/// ```
/// # use std::sync::{Arc, OnceLock};
/// # use probity_idempotency::{IdempotencyLayer, MemoryStore};
/// # use tower::ServiceBuilder;
/// ServiceBuilder::new()
///     .layer(IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant())
///     .service_fn(async |request: http::Request<http_body_util::Full<bytes::Bytes>>| {
///         Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
///     });
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct IdempotencyLayer<S = Scoped> {
    config: Config,
    scope: S,
    /// What all services of this layer share. axum makes services anew for every connection, or every request.
    shared: OnceLock<Arc<Shared>>,
}

impl IdempotencyLayer<Unscoped> {
    /// A layer over `manager`, with the defaults of the payments profile. Call [`scope`](Self::scope) or
    /// [`single_tenant`](Self::single_tenant) next.
    pub fn new(manager: Arc<dyn IdempotencyManager>) -> Self {
        Self { config: Config::new(manager), scope: Unscoped, shared: OnceLock::new() }
    }

    /// Derives the scope from what authentication left in the request, never from what the client chose.
    pub fn scope<F>(self, scope: F) -> IdempotencyLayer<Scoped>
    where
        F: Fn(&Parts) -> Result<Scope, Refusal> + Send + Sync + 'static,
    {
        IdempotencyLayer { config: self.config, scope: Scoped(Arc::new(scope)), shared: OnceLock::new() }
    }

    /// All callers share their keys. Only for a service that has one client.
    pub fn single_tenant(self) -> IdempotencyLayer<Scoped> {
        self.scope(|_| Ok(Scope::single_tenant()))
    }
}

impl<S> IdempotencyLayer<S> {
    /// What the handler may do to the world; [`Effects::Opaque`] if never said.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.change().policy = self.config.policy.clone().effects(effects);
        self
    }

    /// Asks `hook` what happened to an attempt that was lost after it may have had its effect.
    pub fn recover(mut self, hook: impl Recover) -> Self {
        self.change().policy = self.config.policy.clone().recover(hook);
        self
    }

    /// How long that hook may take before the outcome counts as unknown for now; 15 s.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn recover_timeout(mut self, timeout: Duration) -> Self {
        self.change().policy = self.config.policy.clone().recover_timeout(timeout);
        self
    }

    /// Effects, durations and hook in one value; and hash key and store timeout, if it has them.
    pub fn policy(mut self, policy: Policy) -> Self {
        let config = self.change();
        config.hash = policy.hash.unwrap_or(config.hash);
        config.store_timeout = policy.store_timeout.unwrap_or(config.store_timeout);
        config.policy = policy;
        self
    }

    /// How long a claim or renewal holds; 30 s. A lease longer than the end of all renewals moves that end.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.change().policy = self.config.policy.clone().lease(lease);
        self
    }

    /// The end of all renewals; 5 min.
    ///
    /// # Panics
    /// If it is shorter than the lease. Say [`lease`](Self::lease) first.
    #[track_caller]
    pub fn lease_cap(mut self, cap: Duration) -> Self {
        self.change().policy = self.config.policy.clone().lease_cap(cap);
        self
    }

    /// How long answers are replayed; 24 h.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.change().policy = self.config.policy.clone().retention(retention);
        self
    }

    /// Whether a guarded method without a key is refused (the default) or passed through unguarded.
    pub fn key_required(mut self, required: bool) -> Self {
        self.change().key_required = required;
        self
    }

    /// Which methods are guarded; POST and PATCH.
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.change().methods = methods.into_iter().collect();
        self
    }

    /// The largest request body; 1 MiB. A larger one is refused, never cut.
    pub fn request_cap(mut self, bytes: usize) -> Self {
        self.change().request_cap = bytes;
        self
    }

    /// The largest answer that is kept; 256 KiB. A larger one is delivered, and leaves a tombstone.
    pub fn response_cap(mut self, bytes: usize) -> Self {
        self.change().response_cap = bytes;
        self
    }

    /// How long the body of an answer may take before it counts as a stream; 2 s.
    pub fn response_patience(mut self, patience: Duration) -> Self {
        self.change().response_patience = patience;
        self
    }

    /// How long one call to the store may take before it counts as failed; 5 s.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.change().store_timeout = timeout;
        self
    }

    /// Lets a duplicate of a running request wait up to `limit` for its answer, instead of being told 409 at once.
    ///
    /// Off unless called. At most `waiters` wait at a time, over all records; more are told 409, as is whoever waited in
    /// vain. A client that leaves stops waiting. Keep the limit below two seconds or so: every waiter holds a
    /// connection.
    pub fn wait(mut self, limit: Duration, waiters: usize) -> Self {
        self.change().waiting = Some(Arc::new(Waiting::new(limit, waiters)));
        self
    }

    /// Keeps this response header too.
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        self.change().extra_headers.push(name);
        self
    }

    /// Keys fingerprints and record ids with a secret; the same in every process.
    pub fn hash_key(mut self, hash: HashKey) -> Self {
        self.change().hash = hash;
        self
    }

    /// What services were made of before this stands no longer.
    fn change(&mut self) -> &mut Config {
        self.shared = OnceLock::new();
        &mut self.config
    }

    /// The running handlers, to wait for at shutdown.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.config.tasks.clone()
    }
}

impl<S> Layer<S> for IdempotencyLayer<Scoped> {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = self.shared.get_or_init(|| {
            let mut config = self.config.clone();
            config.manager = Arc::new(Timed { inner: config.manager, limit: config.store_timeout });
            Arc::new(Shared { config, scope: Arc::clone(&self.scope.0) })
        });
        IdempotencyService { inner, shared: Arc::clone(shared) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) scope: Arc<ScopeFn>,
}

/// A service behind an [`IdempotencyLayer`]. Its error type is the inner service's.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

type Answering<B, E> = Pin<Box<dyn Future<Output = Result<Response<ReplayBody<B>>, E>> + Send>>;

impl<S, ReqB, ResB> Service<Request<ReqB>> for IdempotencyService<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body + From<Bytes> + Send + 'static,
    ReqB::Data: Send,
    ReqB::Error: Send,
    ResB: Body<Data = Bytes> + Send + 'static,
    ResB::Error: Send,
{
    type Response = Response<ReplayBody<ResB>>;
    type Error = S::Error;
    type Future = Answering<ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        // The instance that was polled ready is the one that may be called; its clone is made ready next time.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        let guarded = shared.config.methods.contains(request.method());
        let has_key = request.headers().contains_key(request::KEY_HEADER);
        if !guarded || (!has_key && !shared.config.key_required) {
            let answer = inner.call(request);
            return Box::pin(async move { answer.await.map(|response| response.map(ReplayBody::inner)) });
        }
        Box::pin(async move {
            match prepare(&shared, request).await {
                Ok((request, run)) => run::tracked(shared, inner, request, run).await,
                Err(problem) => Ok(problem.into_response().map(ReplayBody::full)),
            }
        })
    }
}

/// Everything that can be refused before the store is asked.
async fn prepare<B>(shared: &Shared, request: Request<B>) -> Result<(Request<B>, Run), Problem>
where
    B: Body + From<Bytes>,
{
    let (parts, body) = request.into_parts();
    let key = request::key(&parts.headers)?.ok_or(Problem::KeyMissing)?;
    let scope = (shared.scope)(&parts).map_err(Problem::Refused)?;
    let body = request::body(&parts.headers, body, shared.config.request_cap).await?;
    let run =
        Run::new(&shared.config, &scope, &key, request::fingerprint(&shared.config, &parts, &body), &body)?;
    Ok((Request::from_parts(parts, B::from(body)), run))
}
