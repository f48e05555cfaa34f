//! The layer: its settings, and the service it puts around another.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};
use tower_layer::Layer;

use super::config::{Config, Shared};
use super::fingerprint::FingerprintRules;
use super::problem::ProblemDetails;
use super::scope::{Refusal, Scoped, Unscoped};
use super::service::IdempotencyService;
use super::tasks::Tasks;
use super::wait::Waiting;
use crate::core::claim::Effects;
use crate::core::identity::HashKey;
use crate::core::key::Scope;
use crate::policy::Policy;
use crate::recover::Recover;
use crate::store::manager::IdempotencyManager;
use crate::store::timed::Timed;

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
/// # use probity_idempotency::{IdempotencyLayer, MemoryStore, layer::ReplayBody};
/// # use tower::ServiceBuilder;
/// ServiceBuilder::new()
///     .layer(IdempotencyLayer::new(Arc::new(MemoryStore::new())))
///     .service_fn(async |request: http::Request<ReplayBody<http_body_util::Full<bytes::Bytes>>>| {
///         Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
///     });
/// ```
///
/// ```
/// # use std::sync::{Arc, OnceLock};
/// # use probity_idempotency::{IdempotencyLayer, MemoryStore, layer::ReplayBody};
/// # use tower::ServiceBuilder;
/// ServiceBuilder::new()
///     .layer(IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant())
///     .service_fn(async |request: http::Request<ReplayBody<http_body_util::Full<bytes::Bytes>>>| {
///         Ok::<_, std::convert::Infallible>(http::Response::new(request.into_body()))
///     });
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct IdempotencyLayer<S = Scoped> {
    config: Config,
    scope: S,
    /// The state that all services of this layer share. axum makes services anew for every connection, or every
    /// request.
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
    /// Declares the effects that the handler may have; [`Effects::Opaque`] if never said.
    pub fn effects(mut self, effects: Effects) -> Self {
        self.change().policy = self.config.policy.clone().effects(effects);
        self
    }

    /// Asks `hook` what happened to an attempt that was lost after it may have had its effect.
    pub fn recover(mut self, hook: impl Recover) -> Self {
        self.change().policy = self.config.policy.clone().recover(hook);
        self
    }

    /// Limits how long that hook may take before the outcome counts as unknown for now; 15 s.
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

    /// Sets how long a claim or renewal holds; 30 s. A lease longer than the end of all renewals moves that end.
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

    /// Sets how long answers are replayed; 24 h.
    ///
    /// # Panics
    /// If it is zero.
    #[track_caller]
    pub fn retention(mut self, retention: Duration) -> Self {
        self.change().policy = self.config.policy.clone().retention(retention);
        self
    }

    /// Sets whether a guarded method without a key is refused (the default) or passed through unguarded.
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

    /// Limits how long the body of an answer of known length may take before it counts as a stream; 2 s.
    pub fn response_patience(mut self, patience: Duration) -> Self {
        self.change().response_patience = patience;
        self
    }

    /// Limits how long the body of an answer of unknown length may pause before it counts as a stream, and goes out; not at
    /// all.
    ///
    /// A stream leaves a tombstone: the client gets it as it comes, and a retry is answered that it ran. Set more than
    /// zero for a handler that passes on short answers in chunks, so that they are recorded. An answer of type
    /// `text/event-stream` never waits.
    pub fn stream_patience(mut self, patience: Duration) -> Self {
        self.change().stream_patience = patience;
        self
    }

    /// Limits how long one call to the store may take before it counts as failed; 5 s.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.change().store_timeout = timeout;
        self
    }

    /// Lets a duplicate of a running request wait up to `limit` for its answer, instead of getting 409 at once.
    ///
    /// It is off by default. At most `waiters` wait at a time, over all records. Any other duplicate gets 409, and so
    /// does one whose wait ends without an answer. A client that leaves stops waiting. Keep the limit below two seconds
    /// or so: every waiter holds a connection.
    pub fn wait(mut self, limit: Duration, waiters: usize) -> Self {
        self.change().waiting = Some(Arc::new(Waiting::new(limit, waiters)));
        self
    }

    /// Keeps this response header too; [the guide](crate::guide::wire) lists those that always are.
    ///
    /// # Panics
    /// If it frames one delivery of an answer, as `Content-Length` and `Connection` do: a replay with it could not be read.
    #[track_caller]
    pub fn keep_header(mut self, name: HeaderName) -> Self {
        use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
        assert!(
            ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(&name),
            "{name} belongs to one delivery of an answer: leave it out of `keep_header`, the server sets it anew"
        );
        self.change().extra_headers.push(name);
        self
    }

    /// Decides what counts when a request is compared with the first one of its key.
    pub fn fingerprint(mut self, rules: FingerprintRules) -> Self {
        self.change().rules = rules;
        self
    }

    /// Reads the key from this request header; `Idempotency-Key`.
    pub fn key_header(mut self, name: HeaderName) -> Self {
        self.change().refusals.key_header = name;
        self
    }

    /// Puts this before the name of a problem to make its `type`; the address of this crate's list of problems.
    ///
    /// End it with what separates the two: `https://docs.example/problems/`, or `urn:example:problem:`.
    pub fn problem_base(mut self, base: impl Into<Cow<'static, str>>) -> Self {
        self.change().refusals.base = base.into();
        self
    }

    /// Makes the answers to refused requests; problem documents, unless said otherwise.
    ///
    /// The layer sets `Idempotency-Status`, and `Retry-After` and `Location` where the answer does not have them.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use probity_idempotency::{IdempotencyLayer, MemoryStore};
    /// let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant().render(|problem| {
    ///     let mut response = http::Response::new(format!("{}: {}", problem.name, problem.detail).into());
    ///     *response.status_mut() = problem.status;
    ///     response
    /// });
    /// ```
    pub fn render(
        mut self,
        render: impl Fn(&ProblemDetails) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.change().refusals.render = Some(Arc::new(render));
        self
    }

    /// Frees the key after an answer with one of these statuses, which in this service mean that nothing was done.
    ///
    /// [The guide](crate::guide::wire) lists the statuses that always free it. Add statuses that only this service
    /// knows, such as a 503 of a load shedder inside the layer, or a 422 that only its extractors answer. An answer
    /// after a mark is still recorded, and a [`Verdict`](crate::layer::Verdict) decides before the status does.
    ///
    /// # Panics
    /// If one of them is below 400: such an answer reports what was done.
    #[track_caller]
    pub fn release_on(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        let statuses: Vec<_> = statuses.into_iter().collect();
        assert!(
            statuses.iter().all(|status| status.as_u16() >= 400),
            "a status below 400 does not say that nothing was done: leave it out of `release_on`"
        );
        self.change().released = statuses;
        self
    }

    /// Keys fingerprints and record ids with a secret; the same in every process.
    pub fn hash_key(mut self, hash: HashKey) -> Self {
        self.change().hash = hash;
        self
    }

    /// Drops the state of services that were made before this change.
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
            let store = Arc::clone(&config.manager);
            config.manager = Arc::new(Timed { inner: config.manager, limit: config.store_timeout });
            Arc::new(Shared { config, scope: Arc::clone(&self.scope.0), store })
        });
        IdempotencyService::new(inner, Arc::clone(shared))
    }
}
