//! The settings of a layer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::fingerprint::FingerprintRules;
use super::problem::Refusals;
use super::scope::ScopeFn;
use super::tasks::Tasks;
use super::wait::Waiting;
use crate::core::identity::HashKey;
use crate::policy::{Policy, STORE_TIMEOUT};
use crate::store::manager::IdempotencyManager;

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
    pub(crate) stream_patience: Duration,
    pub(crate) store_timeout: Duration,
    /// The waiters for running requests; `None` unless waiting is switched on.
    pub(crate) waiting: Option<Arc<Waiting>>,
    pub(crate) extra_headers: Vec<http::HeaderName>,
    /// Statuses that, in this service, say that nothing was done.
    pub(crate) released: Vec<StatusCode>,
    pub(crate) rules: FingerprintRules,
    pub(crate) refusals: Refusals,
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
            stream_patience: Duration::ZERO,
            store_timeout: STORE_TIMEOUT,
            waiting: None,
            extra_headers: Vec::new(),
            released: Vec::new(),
            rules: FingerprintRules::new(),
            refusals: Refusals::default(),
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

/// The state that all services of one layer share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) scope: Arc<ScopeFn>,
    /// The store as the layer was given it. Layers that were given one store hold the same records.
    pub(crate) store: Arc<dyn IdempotencyManager>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}
