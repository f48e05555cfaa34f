//! What is decided once per route or job.

use std::sync::Arc;
use std::time::Duration;

use crate::{Effects, Recover, Terms};

/// Declared effects, durations, and an optional hook that finds out what happened to a lost attempt.
///
/// Durations that cannot be right are refused before anything runs: by [`execute`](crate::execute) with an error, by
/// the layer with a panic when it is put around a service.
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
}

impl Policy {
    /// Declares what an execution may do to the world; [`Effects::Opaque`] if never said.
    pub const fn effects(mut self, effects: Effects) -> Self {
        self.effects = effects;
        self
    }

    /// How long one claim or renewal holds; 30 s. It is renewed every third of it. Not zero.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.terms.lease = lease;
        self
    }

    /// The end of all renewals; 5 min. At least the lease.
    pub const fn lease_cap(mut self, cap: Duration) -> Self {
        self.terms.lease_cap = cap;
        self
    }

    /// How long a finished record answers retries; 24 h. Publish it to your clients: a later retry runs anew.
    /// Not zero.
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.terms.retention = retention;
        self
    }

    /// What is wrong with the durations, and what to do about it. Said where the policy is put to use, since they are
    /// given one after the other.
    pub(crate) const fn check(&self) -> Result<(), &'static str> {
        if self.terms.lease.is_zero() {
            return Err(
                "a lease of zero protects nothing: give `lease` as long as a pause of the process may last",
            );
        }
        if self.terms.retention.is_zero() {
            return Err(
                "a retention of zero runs every retry again: give `retention` as long as clients retry",
            );
        }
        if self.terms.lease_cap.as_nanos() < self.terms.lease.as_nanos() {
            return Err(
                "the lease is longer than the end of all renewals: raise `lease_cap` or shorten `lease`",
            );
        }
        Ok(())
    }

    /// Asks this hook what happened when an attempt was lost after it may have had its effect.
    pub fn recover(mut self, hook: impl Recover) -> Self {
        self.recover = Some(Arc::new(hook));
        self
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("effects", &self.effects)
            .field("terms", &self.terms)
            .field("recover", &self.recover.is_some())
            .finish()
    }
}
