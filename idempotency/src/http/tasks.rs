//! The requests that are running, for a shutdown to wait for.

use std::fmt;

use tokio_util::task::TaskTracker;

/// The handlers that are running, with or without a client waiting for them.
#[derive(Clone, Default)]
pub struct Tasks(pub(crate) TaskTracker);

impl Tasks {
    /// Waits until every running handler has finished and its answer is recorded. Stop accepting requests first, and
    /// drop what you no longer poll: the future of a request that is kept but not polled (the loser of a `select!`, a
    /// connection still in scope) is frozen, and this waits for it without end. Dropped, it goes on by itself.
    ///
    /// # Cancel safety
    /// Only waits.
    pub async fn drain(&self) {
        self.0.close();
        self.0.wait().await;
        self.0.reopen();
    }

    /// The number of handlers that are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running()).finish()
    }
}
