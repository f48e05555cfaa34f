//! Unusable idle connections of the pool: dead ones that it lends without a test, and those to a server that takes no
//! writes any more.
//!
//! Invariant: at most as many are skipped as were idle at the start. A new connection that is unusable is a failure
//! like any other, so that a server that is away is not flooded.

use sqlx::Pool;

use crate::backend::Backend;
use crate::classify::Class;
use crate::failure::Failure;

/// The number of next connections that may be unusable without counting as an attempt.
pub(crate) struct IdleConnections {
    left: usize,
    /// The pool lends them without a test.
    untested: bool,
}

impl IdleConnections {
    /// Counts the idle connections of `pool`.
    pub(crate) fn idle_in<DB: Backend>(pool: &Pool<DB>) -> Self {
        Self { left: pool.num_idle(), untested: !pool.options().get_test_before_acquire() }
    }

    /// Tells whether `failure` of the first statement only shows that the connection is unusable, so that the run takes
    /// another one.
    pub(crate) fn skip_dead(&mut self, failure: &Failure) -> bool {
        let useless = match failure.class() {
            Class::ConnectionLost => self.untested,
            // The pool's test does not ask for it: after a failover all of them may lead to the old server.
            Class::ReadOnly => true,
            _ => false,
        };
        let passed = useless && self.left > 0;
        self.left -= usize::from(passed);
        passed
    }
}
