//! A lock on a name, for a thing that has no row yet.

use std::fmt;
use std::marker::PhantomData;

use sqlx::{Arguments as _, Executor as _, SqlSafeStr as _};
use tokio::time::Instant;

use super::error::LockError;
use super::provable::check_provable;
use crate::backend::Backend;
use crate::metrics;
use crate::tx::handle::Tx;
use crate::tx::statement::Inspected;

/// The proof that this transaction holds the advisory lock of a name.
pub struct Advisory<'b> {
    brand: PhantomData<fn(&'b ()) -> &'b ()>,
}

impl fmt::Debug for Advisory<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Advisory").finish_non_exhaustive()
    }
}

impl<'b, DB: Backend> Tx<'b, DB> {
    /// Locks the name `key` in `namespace` until the transaction ends (`pg_advisory_xact_lock`; on
    /// SQLite the transaction is the only writer since BEGIN). For things that have no row to lock.
    ///
    /// Two names may fall on the same lock by accident: they then wait for each other, which is never
    /// wrong. The lock works only if every transaction takes it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as with any statement.
    ///
    /// # Errors
    ///
    /// [`LockError::RepeatableRead`], [`LockError::ReadOnly`], [`LockError::Database`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
    /// probity_txn::on(pool, "open-account")
    ///     .run(async |tx| {
    ///         let _lock = tx.advisory("customer", "42").await?;
    ///         sqlx::query("INSERT INTO accounts (customer) VALUES (42)").execute(&mut *tx).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub async fn advisory(&mut self, namespace: &str, key: &str) -> Result<Advisory<'b>, LockError>
    where
        i64: crate::lock::key::LockKey<DB>,
    {
        check_provable(&mut *self.state)?;
        if let Some(syntax) = DB::LOCKS {
            let mut arguments = DB::Arguments::default();
            arguments.add(lock_number(namespace, key)).map_err(sqlx::Error::Encode)?;
            // A statement of its own: whatever else it read would be older than the lock.
            let asked = Instant::now();
            let answer = self.execute(Inspected::from_parts(syntax.advisory.into_sql_str(), arguments)).await;
            metrics::record_lock_wait(self.label(), asked.elapsed());
            answer?;
        }
        Ok(Advisory { brand: PhantomData })
    }
}

/// Computes FNV-1a over both parts: the same number in every process and every version of this crate.
fn lock_number(namespace: &str, key: &str) -> i64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let hash = namespace.as_bytes().iter().fold(OFFSET, step);
    // A byte that is in no text keeps ("ab", "c") and ("a", "bc") apart.
    let hash = key.as_bytes().iter().fold(step(hash, &0xff), step);
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::lock_number;

    #[test]
    fn the_number_of_a_name_never_changes() {
        assert_eq!(lock_number("customer", "42"), 2_598_012_335_649_893_952);
        assert_ne!(lock_number("ab", "c"), lock_number("a", "bc"));
    }
}
