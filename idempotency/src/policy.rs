//! The decisions that are made once for a route or a job.

use std::sync::Arc;
use std::time::Duration;

use crate::core::claim::{Effects, Terms};
use crate::core::identity::HashKey;
use crate::recover::Recover;

/// The time that one call to the store may take unless the policy says otherwise.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Declared effects, durations, and an optional hook that finds out what happened to a lost attempt.
///
/// A policy that exists is one that can be right: durations that cannot be panic where they are given, which is where a
/// service is put together, and in a constant does not compile.
///
/// ```
/// use std::time::Duration;
/// use probity_idempotency::{Effects, Policy};
/// let policy = Policy::default().effects(Effects::Marked).retention(Duration::from_secs(7 * 86_400));
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Policy {
    pub(crate) effects: Effects,
    pub(crate) terms: Terms,
    pub(crate) recover: Option<Arc<dyn Recover>>,
    pub(crate) recover_timeout: Option<Duration>,
    pub(crate) hash: Option<HashKey>,
    pub(crate) store_timeout: Option<Duration>,
}

impl Policy {
    /// Declares what an execution may do to the world; [`Effects::Opaque`] if never said.
    pub const fn effects(mut self, effects: Effects) -> Self {
        self.effects = effects;
        self
    }

    /// Sets how long one claim or renewal holds; 30 s. It is renewed every third of it. A lease longer than the end of
    /// all renewals moves that end.
    ///
    /// # Panics
    /// If it is zero: that would protect nothing.
    #[track_caller]
    pub const fn lease(mut self, lease: Duration) -> Self {
        assert!(
            !lease.is_zero(),
            "a lease of zero protects nothing: give `lease` as long as a pause of the process may last"
        );
        self.terms.lease = lease;
        if self.terms.lease_cap.as_nanos() < lease.as_nanos() {
            self.terms.lease_cap = lease;
        }
        self
    }

    /// The end of all renewals; 5 min.
    ///
    /// # Panics
    /// If it is shorter than the lease. Say [`lease`](Self::lease) first.
    #[track_caller]
    pub const fn lease_cap(mut self, cap: Duration) -> Self {
        assert!(
            cap.as_nanos() >= self.terms.lease.as_nanos(),
            "the lease is longer than the end of all renewals: raise `lease_cap`, or say a shorter `lease` before it"
        );
        self.terms.lease_cap = cap;
        self
    }

    /// Sets how long a finished record answers retries; 24 h. Publish it to your clients: a later retry runs anew.
    ///
    /// # Panics
    /// If it is zero: every retry would run again.
    #[track_caller]
    pub const fn retention(mut self, retention: Duration) -> Self {
        assert!(
            !retention.is_zero(),
            "a retention of zero runs every retry again: give `retention` as long as clients retry"
        );
        self.terms.retention = retention;
        self
    }

    /// Asks this hook what happened when an attempt was lost after it may have had its effect.
    pub fn recover(mut self, hook: impl Recover) -> Self {
        self.recover = Some(Arc::new(hook));
        self
    }

    /// Limits how long the [`Recover`] hook may take before the outcome counts as unknown for now; 15 s unless it is said
    /// here. Callers that come while the hook runs are answered "in flight".
    ///
    /// # Panics
    /// If it is zero: the hook would never be asked.
    #[track_caller]
    pub const fn recover_timeout(mut self, timeout: Duration) -> Self {
        assert!(
            !timeout.is_zero(),
            "a limit of zero asks nobody: give `recover_timeout` as long as the other side takes to answer"
        );
        self.recover_timeout = Some(timeout);
        self
    }

    /// Keys record ids with a secret, the same in every process; also fingerprints, where the layer makes them. Without
    /// it they are keyed with a published constant.
    pub const fn hash_key(mut self, hash: HashKey) -> Self {
        self.hash = Some(hash);
        self
    }

    /// Limits how long one call to the store may take before it counts as failed, with an unknown effect; 5 s.
    pub const fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = Some(timeout);
        self
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("effects", &self.effects)
            .field("terms", &self.terms)
            .field("recover", &self.recover.is_some())
            .field("recover_timeout", &self.recover_timeout)
            .field("store_timeout", &self.store_timeout)
            .finish_non_exhaustive()
    }
}
