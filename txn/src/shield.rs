//! A future that finishes even when its owner is dropped.
//!
//! Invariant: once polled, a [`Shield`] runs to its end: inside its owner, or, when the owner is
//! dropped first, as a task of the runtime it was made on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs `F` in place; hands it to the runtime when dropped half-way.
///
/// In place means that the usual case costs no task switch.
pub(crate) struct Shield<F: Future<Output: Send> + Send + 'static> {
    future: Option<Pin<Box<F>>>,
    runtime: Handle,
}

impl<F: Future<Output: Send> + Send + 'static> Shield<F> {
    /// Shields `future` with the current runtime.
    pub(crate) fn new(future: F) -> Self {
        Self { future: Some(Box::pin(future)), runtime: Handle::current() }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Shield<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Out of `self` while it runs: a future that panics is gone, and is not resumed by the drop.
        let Some(mut future) = self.future.take() else {
            return Poll::Pending;
        };
        let poll = future.as_mut().poll(context);
        if poll.is_pending() {
            self.future = Some(future);
        }
        poll
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Shield<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_shielded_future_finishes_after_its_owner_was_dropped() {
        let (go, gate) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        let mut shield = Box::pin(Shield::new(async move {
            let _ = gate.await;
            let _ = done.send(7);
        }));
        let first = std::future::poll_fn(|context| Poll::Ready(shield.as_mut().poll(context)));
        assert!(first.await.is_pending());
        drop(shield);
        go.send(()).unwrap();
        assert_eq!(finished.await, Ok(7));
    }
}
