//! Row locks that leave a witness.
//!
//! Invariant: a [`Locked`] exists only while its transaction, or its scope, holds the lock; a
//! function that must not run without the lock asks for the witness in its signature.

use std::fmt;
use std::marker::PhantomData;

use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

mod advisory;
mod error;
mod rows;
mod sql;

pub use advisory::Advisory;
pub use error::LockError;

use crate::backend::Backend;
use crate::error::{Misuse, Reason};
use crate::open::Open;
use crate::settings::Isolation;

/// A kind of row that can be locked: its table and the column of its key.
///
/// ```
/// struct Payment;
///
/// impl probity_txn::Lockable for Payment {
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

/// A key that `DB` can store and read. Every type that sqlx can, is one; on PostgreSQL it also needs an array of it
/// (`PgHasArrayType`), because many keys travel as one parameter. `#[derive(sqlx::Type)]` gives both.
///
/// Never implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a row to lock on this database",
    note = "it needs sqlx's Type, Encode and Decode, and on PostgreSQL PgHasArrayType; #[derive(sqlx::Type)] gives \
            all of them, and a key has to be Clone and Ord"
)]
pub trait LockKey<DB: Database>:
    for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> + Type<DB> + Clone + Ord + Send + Sync + 'static
{
    /// The constant is true where many keys are one parameter, so that one statement text serves every count of them.
    #[doc(hidden)]
    const ONE_PARAMETER: bool;

    /// Adds the keys: all as one parameter, or each as its own.
    #[doc(hidden)]
    fn add_all(keys: Vec<Self>, arguments: &mut DB::Arguments) -> Result<(), BoxDynError>;
}

#[cfg(feature = "postgres")]
impl<K> LockKey<sqlx::Postgres> for K
where
    K: for<'q> Encode<'q, sqlx::Postgres> + for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
    K: sqlx::postgres::PgHasArrayType + Clone + Ord + Send + Sync + 'static,
{
    const ONE_PARAMETER: bool = true;

    fn add_all(keys: Vec<Self>, arguments: &mut sqlx::postgres::PgArguments) -> Result<(), BoxDynError> {
        sqlx::Arguments::add(arguments, keys)
    }
}

#[cfg(feature = "sqlite")]
impl<K> LockKey<sqlx::Sqlite> for K
where
    K: for<'q> Encode<'q, sqlx::Sqlite> + for<'r> Decode<'r, sqlx::Sqlite> + Type<sqlx::Sqlite>,
    K: Clone + Ord + Send + Sync + 'static,
{
    const ONE_PARAMETER: bool = false;

    fn add_all(keys: Vec<Self>, arguments: &mut sqlx::sqlite::SqliteArguments) -> Result<(), BoxDynError> {
        keys.into_iter().try_for_each(|key| sqlx::Arguments::add(arguments, key))
    }
}

/// Proof that this transaction holds the lock of one row of `R`.
///
/// A function that sums the children of a payment can demand it, so that nobody sums before locking:
///
/// ```
/// # use probity_txn::{Lockable, Locked, Tx};
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
    transaction: u64,
    brand: PhantomData<fn(&'b ()) -> &'b ()>,
}

impl<R: Lockable> Locked<'_, R> {
    /// The key of the locked row.
    #[must_use]
    pub fn key(&self) -> &R::Key {
        &self.key
    }

    fn new(key: R::Key, transaction: u64) -> Self {
        Self { key, transaction, brand: PhantomData }
    }
}

/// Without the key: it may be a customer's.
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

/// Refuses where a witness would prove nothing. The transaction cannot be committed afterwards: a closure that takes
/// the refusal for "no such row" must not go on.
fn provable<DB: Backend>(open: &mut Open<DB>) -> Result<(), LockError> {
    if open.settings.read_only {
        return Err(refuse(
            open,
            LockError::ReadOnly,
            "a run that declared read_only() cannot lock; leave read_only() out",
        ));
    }
    if DB::locks_rows() && open.settings.isolation == Some(Isolation::RepeatableRead) {
        let remedy = "a lock proves nothing at REPEATABLE READ; use READ COMMITTED or SERIALIZABLE";
        return Err(refuse(open, LockError::RepeatableRead, remedy));
    }
    Ok(())
}

fn refuse<DB: Backend>(open: &mut Open<DB>, error: LockError, remedy: &'static str) -> LockError {
    open.watch.spoil(Reason::Misuse(Misuse::Lock { remedy }));
    error
}
