//! Connections that a pool lends without asking whether they are still alive.
//!
//! Invariant: only as many are passed over as lay in the pool at the start; one that was made afresh and dies
//! is a failure like any other, so that a server that is away is not flooded.

use sqlx::Pool;

use crate::backend::Backend;
use crate::classify::{Class, Failure};

/// How many of the next connections may turn out to be dead without anything having been tried on them.
pub(crate) struct Untested(usize);

impl Untested {
    /// Those that lie in `pool` now; none where the pool tests them itself.
    pub(crate) fn lying_in<DB: Backend>(pool: &Pool<DB>) -> Self {
        Self(if pool.options().get_test_before_acquire() { 0 } else { pool.num_idle() })
    }

    /// Whether `failure` of the first statement only says that the connection was dead, and another one is to
    /// be taken.
    pub(crate) fn passes_over(&mut self, failure: &Failure) -> bool {
        let dead = failure.class() == Class::ConnectionLost && self.0 > 0;
        self.0 -= usize::from(dead);
        dead
    }
}
