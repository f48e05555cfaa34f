//! The handle a closure receives.

use std::fmt;
use std::marker::PhantomData;

use crate::backend::Backend;
use crate::error::RollbackReason;
use crate::tx::tx_state::TxState;

/// An open transaction. `&mut Tx` is a [`sqlx::Executor`]: pass `&mut *tx` where sqlx wants one.
///
/// It is not the connection and does not lend it. Each statement goes through the handle, which
/// remembers failures: a transaction with a failed statement is never committed, whatever the
/// closure returns.
///
/// It refuses text that begins, ends or nests a transaction, and several statements in one text where
/// only some rows may be read (`fetch_one`, `fetch_optional`, `fetch`): on SQLite the rest would not
/// run. Send one statement at a time, or all of them with `sqlx::raw_sql(..).execute(..)`.
///
/// `'b` stands for this one attempt, or for one [scope](Tx::scope) in it. A value with this lifetime cannot leave the
/// closure.
#[must_use]
pub struct Tx<'b, DB: Backend> {
    pub(crate) state: &'b mut TxState<DB>,
    brand: PhantomData<fn(&'b ()) -> &'b ()>,
}

impl<'b, DB: Backend> Tx<'b, DB> {
    pub(crate) fn new(state: &'b mut TxState<DB>) -> Self {
        Self { state, brand: PhantomData }
    }

    /// The label given to [`on`](crate::on).
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.state.settings.label
    }

    /// Gives the number of the attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.state.attempt
    }

    /// Registers what is to happen after the commit: dropping a cache entry, waking a worker.
    ///
    /// Hooks run once the outermost COMMIT was answered with success, in the order of their
    /// registration, before [`run`](crate::Txn::run) returns; not if the transaction or the scope
    /// that registered them is rolled back. They get no transaction. A panic in one is logged and
    /// changes nothing; one that takes longer than [`hook_timeout`](crate::Policy::hook_timeout) is dropped. They
    /// live in memory: if the process dies right after the commit they do not run, so never leave to them what must
    /// happen.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(
    /// #     pool: &sqlx::SqlitePool,
    /// #     wake: std::sync::Arc<tokio::sync::Notify>,
    /// # ) -> Result<(), probity_txn::Error<sqlx::Error>> {
    /// probity_txn::on(pool, "enqueue")
    ///     .run(async |tx| {
    ///         sqlx::query("INSERT INTO jobs (kind) VALUES ('payout')").execute(&mut *tx).await?;
    ///         let wake = wake.clone();
    ///         tx.after_commit(async move { wake.notify_one() });
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn after_commit(&mut self, hook: impl Future<Output = ()> + Send + 'static) {
        self.state.hooks.add(hook);
    }

    /// Makes sure that this transaction is rolled back, even if the closure returns `Ok`; the run
    /// then fails with [`RollbackReason::Requested`]. In a scope it means the scope.
    pub fn set_rollback_only(&mut self) {
        self.state.guard.poison(RollbackReason::Requested);
    }
}

impl<DB: Backend> fmt::Debug for Tx<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx")
            .field("label", &self.label())
            .field("attempt", &self.attempt())
            .field("database", &DB::NAME)
            .finish_non_exhaustive()
    }
}
