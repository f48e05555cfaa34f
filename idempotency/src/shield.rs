//! A future that finishes even when its owner is dropped.
//!
//! The file is the same in every crate of the family.
//!
//! Invariant: once made, a [`Shield`] runs its future to the end: inside its owner, or, when the owner is dropped
//! first, as a task of the runtime on which it was made. A future that panicked is not polled again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs `F` in place, and hands it to the runtime when dropped half-way.
///
/// In place means that the usual case costs no task.
#[must_use = "a future does nothing unless it is polled or dropped"]
pub(crate) struct Shield<F: Future + Send + 'static> {
    future: Option<Pin<Box<F>>>,
    /// The runtime is taken when the shield is made, because the drop may happen outside of any runtime.
    runtime: Handle,
}

impl<F: Future + Send + 'static> Shield<F> {
    /// Shields `future` with the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn new(future: F) -> Self {
        Self { future: Some(Box::pin(future)), runtime: Handle::current() }
    }
}

impl<F: Future + Send + 'static> Future for Shield<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is out of `self` while it runs: one that panics is gone, and the drop does not resume it.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.future = Some(future);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Shield<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            // The output is dropped where the future ends, so it need not be `Send`.
            self.runtime.spawn(async move { drop(future.await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// A shield around a wait for a word, and the word's two ends.
    fn waiting() -> (Shield<impl Future<Output = ()> + Send>, oneshot::Sender<()>, oneshot::Receiver<u8>) {
        let (go, gate) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel();
        let future = async move {
            let _ = gate.await;
            let _ = done.send(7);
        };
        (Shield::new(future), go, finished)
    }

    /// Polls `future` once and says whether it waits.
    async fn waits(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_shielded_future_finishes_after_its_owner_was_dropped() {
        let (mut shield, go, finished) = waiting();
        assert!(waits(&mut shield).await);
        drop(shield);
        go.send(()).unwrap();
        assert_eq!(finished.await, Ok(7));
    }

    #[tokio::test]
    async fn a_shielded_future_finishes_although_it_was_never_polled() {
        let (shield, go, finished) = waiting();
        drop(shield);
        go.send(()).unwrap();
        assert_eq!(finished.await, Ok(7));
    }

    #[tokio::test]
    async fn a_shielded_future_finishes_after_a_sibling_in_the_same_task_panicked() {
        let (shield, go, finished) = waiting();
        let both = tokio::spawn(async move {
            tokio::join!(shield, async {
                tokio::task::yield_now().await;
                panic!("the sibling's fault");
            })
        });
        assert!(both.await.unwrap_err().is_panic());
        go.send(()).unwrap();
        assert_eq!(finished.await, Ok(7));
    }

    #[test]
    fn a_shielded_future_finishes_when_it_is_dropped_outside_of_the_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (shield, go, finished) = runtime.block_on(async {
            let (mut shield, go, finished) = waiting();
            assert!(waits(&mut shield).await);
            (shield, go, finished)
        });
        drop(shield);
        go.send(()).unwrap();
        assert_eq!(runtime.block_on(finished), Ok(7));
    }

    #[tokio::test]
    async fn a_future_that_panicked_is_not_polled_again() {
        let polls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&polls);
        let mut shield = Shield::new(std::future::poll_fn(move |_| -> Poll<()> {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("its own fault");
        }));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let poll = AssertUnwindSafe(|| Pin::new(&mut shield).poll(&mut context));
        assert!(catch_unwind(poll).is_err());
        drop(shield);
        // On this runtime of one thread, a task that the drop had spawned would run now.
        tokio::task::yield_now().await;
        assert_eq!(polls.load(Ordering::SeqCst), 1);
    }
}
