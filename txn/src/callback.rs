//! The bound that lets an async closure with borrowed captures promise a `Send` future.
//!
//! `AsyncFnOnce` alone cannot say that its future is `Send`; naming the future through `FnOnce`
//! can. Every async closure that may be called once implements [`TxFnOnce`] by itself.

use std::future::Future;

/// An async closure called once with `A`, whose future can be named and therefore bounded.
///
/// Never implement it: `async |tx| { .. }` does.
pub trait TxFnOnce<A, R>: AsyncFnOnce(A) -> R + FnOnce(A) -> <Self as TxFnOnce<A, R>>::Fut {
    /// The future of one call.
    type Fut: Future<Output = R>;
}

impl<F, A, Fut, R> TxFnOnce<A, R> for F
where
    F: AsyncFnOnce(A) -> R + FnOnce(A) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}

/// An async closure called once with `A` and an item, whose future can be named and therefore bounded.
///
/// Never implement it: `async |tx, item| { .. }` does.
pub trait ItemFnOnce<A, I, R>:
    AsyncFnOnce(A, I) -> R + FnOnce(A, I) -> <Self as ItemFnOnce<A, I, R>>::Fut
{
    /// The future of one call.
    type Fut: Future<Output = R>;
}

impl<F, A, I, Fut, R> ItemFnOnce<A, I, R> for F
where
    F: AsyncFnOnce(A, I) -> R + FnOnce(A, I) -> Fut,
    Fut: Future<Output = R>,
{
    type Fut = Fut;
}
