//! The rows that can be locked, and the witnesses of their locks.
//!
//! Invariant: a [`Locked`] exists only while its transaction, or its scope, holds the lock.

use std::fmt;
use std::marker::PhantomData;

/// A kind of row that can be locked: its table and the column of its key.
///
/// ```
/// struct Payment;
///
/// impl probity_txn::lock::Lockable for Payment {
///     type Key = String;
///     const TABLE: &'static str = "payments";
///     const KEY: &'static str = "payment_no";
/// }
/// ```
///
/// A name that cannot be an SQL name does not compile where the lock is taken.
pub trait Lockable: 'static {
    /// The type of the key.
    type Key: Clone + Ord + Send + Sync + 'static;
    /// The table, with its schema if needed. Names that need double quotes have them (`"\"Order\""`).
    const TABLE: &'static str;
    /// The column that identifies a row; it should be unique.
    const KEY: &'static str = "id";
}

/// The proof that this transaction holds the lock of one row of `R`.
///
/// A function that sums the children of a payment can demand it, so that no caller sums before locking:
///
/// ```
/// # use probity_txn::{Tx, lock::{Lockable, Locked}};
/// # struct Payment;
/// # impl Lockable for Payment { type Key = String; const TABLE: &'static str = "payments"; }
/// # #[cfg(feature = "sqlite")]
/// async fn refunded<'b>(
///     tx: &mut Tx<'b, sqlx::Sqlite>,
///     payment: &Locked<'b, Payment>,
/// ) -> Result<i64, sqlx::Error> {
///     sqlx::query_scalar("SELECT coalesce(sum(amount), 0) FROM refunds WHERE payment = ?")
///         .bind(payment.key())
///         .fetch_one(&mut *tx)
///         .await
/// }
/// ```
pub struct Locked<'b, R: Lockable> {
    key: R::Key,
    pub(super) transaction: u64,
    brand: PhantomData<fn(&'b ()) -> &'b ()>,
}

impl<R: Lockable> Locked<'_, R> {
    /// The key of the locked row.
    #[must_use]
    pub fn key(&self) -> &R::Key {
        &self.key
    }

    pub(super) fn new(key: R::Key, transaction: u64) -> Self {
        Self { key, transaction, brand: PhantomData }
    }
}

/// Leaves the key out: it may be a customer's.
impl<R: Lockable> fmt::Debug for Locked<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").field("table", &R::TABLE).finish_non_exhaustive()
    }
}

/// The answer to [`Tx::try_lock_one`](crate::Tx::try_lock_one).
#[derive(Debug)]
#[must_use = "the row may not be locked"]
pub enum TryLock<'b, R: Lockable> {
    /// The row is locked by this transaction.
    Locked(Locked<'b, R>),
    /// Another transaction holds the row.
    Held,
    /// There is no such row.
    Missing,
}
