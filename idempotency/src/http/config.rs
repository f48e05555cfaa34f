//! What a layer was told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, StatusCode};

use super::run::Tasks;
use super::wait::Waiting;
use crate::policy::STORE_TIMEOUT;
use crate::{HashKey, IdempotencyManager, Policy, Scope};

/// Derives the scope of a request from what authentication left in its extensions.
pub(crate) type ScopeFn = dyn Fn(&Parts) -> Result<Scope, Refusal> + Send + Sync;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) manager: Arc<dyn IdempotencyManager>,
    pub(crate) policy: Policy,
    pub(crate) hash: HashKey,
    pub(crate) methods: Vec<Method>,
    pub(crate) key_required: bool,
    pub(crate) request_cap: usize,
    pub(crate) response_cap: usize,
    pub(crate) response_patience: Duration,
    pub(crate) store_timeout: Duration,
    /// Who waits for running requests; nobody, unless asked for.
    pub(crate) waiting: Option<Arc<Waiting>>,
    pub(crate) extra_headers: Vec<http::HeaderName>,
    pub(crate) tasks: Tasks,
}

impl Config {
    pub(crate) fn new(manager: Arc<dyn IdempotencyManager>) -> Self {
        Self {
            manager,
            policy: Policy::default(),
            hash: HashKey::default(),
            methods: vec![Method::POST, Method::PATCH],
            key_required: true,
            request_cap: 1024 * 1024,
            response_cap: 256 * 1024,
            response_patience: Duration::from_secs(2),
            store_timeout: STORE_TIMEOUT,
            waiting: None,
            extra_headers: Vec::new(),
            tasks: Tasks::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("manager", &self.manager)
            .field("policy", &self.policy)
            .field("methods", &self.methods)
            .field("key_required", &self.key_required)
            .finish_non_exhaustive()
    }
}

/// Why the scope function will not name a scope: usually that nobody is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl Refusal {
    /// Refuses with this status and a sentence for the client.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// 401: nobody is authenticated.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authenticate first; idempotency keys belong to a caller")
    }
}

impl From<crate::KeyError> for Refusal {
    /// A scope that cannot be one is the server's mistake, not the client's.
    fn from(error: crate::KeyError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the server derived an unusable scope: {error}"))
    }
}
