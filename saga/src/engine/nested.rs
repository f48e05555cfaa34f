//! Sagas that a step starts or waits for.
//!
//! Invariant: a step that waits for another saga of its own worker never keeps the last permit from it.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::Engine;
use crate::record::WorkerId;

tokio::task_local! {
    /// The worker that drives the step in which this task is.
    static DRIVEN_BY: WorkerId;
}

/// Runs a call of a step of this worker.
pub(super) async fn inside<F: Future>(engine: &Engine, call: F) -> F::Output {
    DRIVEN_BY.scope(engine.worker, call).await
}

/// The permit of a step that waits, for the saga that needs it. When the step goes on, a permit is taken back as soon
/// as one is free; until then the worker drives one saga more than it may.
#[must_use = "the permit is lent until this is dropped"]
pub(crate) struct Lent(Arc<Semaphore>);

impl Engine {
    /// Lends a permit to a call inside of a step that this worker drives; `None` for every other call.
    pub(crate) fn lend(&self) -> Option<Lent> {
        let inside = DRIVEN_BY.try_with(|worker| *worker == self.worker).unwrap_or(false);
        inside.then(|| {
            self.permits.add_permits(1);
            Lent(Arc::clone(&self.permits))
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.0.forget_permits(1) == 1 {
            return;
        }
        let permits = Arc::clone(&self.0);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(permit) = permits.acquire().await {
                    permit.forget();
                }
            });
        }
    }
}
