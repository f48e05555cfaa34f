//! The hooks that run after the commit, and only then.
//!
//! Invariant: a hook registered in a scope is forgotten with it; a hook runs at most once, after
//! the outermost COMMIT was answered with success; and no hook keeps the run for longer than its limit.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::timeout;

/// The hooks of one attempt, in the order of their registration.
#[derive(Default)]
pub(crate) struct Hooks(Vec<BoxFuture<'static, ()>>);

impl Hooks {
    pub(crate) fn add(&mut self, hook: impl Future<Output = ()> + Send + 'static) {
        self.0.push(hook.boxed());
    }

    /// Counts the hooks, so that a scope can forget those behind them.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Forgets the hooks of a scope that was rolled back.
    pub(crate) fn forget_since(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// Runs them one after the other. A panic or the end of its time ends one hook, not the ones after it.
    pub(crate) async fn run(self, label: &'static str, limit: Duration) {
        for hook in self.0 {
            match timeout(limit, AssertUnwindSafe(hook).catch_unwind()).await {
                Ok(Ok(())) => {}
                Ok(Err(_panic)) => {
                    tracing::error!(label, "a hook panicked after the commit; the commit stands");
                }
                Err(_elapsed) => tracing::error!(
                    label,
                    ?limit,
                    "a hook took too long after the commit and was dropped; the commit stands. Hand long work to a \
                     task or a queue, or raise Policy::hook_timeout"
                ),
            }
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooks").field(&self.0.len()).finish()
    }
}
