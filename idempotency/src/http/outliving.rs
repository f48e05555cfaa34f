//! Work that outlives whoever awaits it.
//!
//! Invariant: it is polled where it is awaited, which costs no task; dropped unfinished, it goes on in a task of its own
//! (I-6). Work that panicked is not polled again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Finishes `work`, awaited or not.
pub(crate) struct Outliving<T: 'static> {
    work: Option<Work<T>>,
    /// Where it goes on. Whoever drops it may be outside of any runtime.
    runtime: Handle,
}

impl<T> Outliving<T> {
    /// Must be called in a runtime, as everything that waits must.
    pub(crate) fn new(work: Work<T>) -> Self {
        Self { work: Some(work), runtime: Handle::current() }
    }
}

impl<T> Future for Outliving<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Out of reach while it is polled: if it panics, it is gone, and dropping this starts nothing.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T> Drop for Outliving<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(async move { drop(work.await) });
        }
    }
}
