//! Connections of the pool on which nothing can be tried: dead ones that it lends without asking, and those to a
//! server that takes no writes any more.
//!
//! Invariant: only as many are passed over as lay in the pool at the start; one that was made afresh and is of no use
//! is a failure like any other, so that a server that is away is not flooded.

use sqlx::Pool;

use crate::backend::Backend;
use crate::classify::Class;
use crate::failure::Failure;

/// The number of next connections that may turn out to be of no use without anything having been tried on them.
pub(crate) struct IdleConnections {
    left: usize,
    /// The pool lends them without a test.
    untested: bool,
}

impl IdleConnections {
    /// Counts the connections that lie in `pool` now.
    pub(crate) fn idle_in<DB: Backend>(pool: &Pool<DB>) -> Self {
        Self { left: pool.num_idle(), untested: !pool.options().get_test_before_acquire() }
    }

    /// Tells whether `failure` of the first statement only says that the connection was of no use, and another one
    /// is to be taken.
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
