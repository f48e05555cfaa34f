//! A part of a transaction that can fail alone.
//!
//! Invariant: a savepoint is released on every way out, also after it was rolled back to, and no two
//! savepoints of a transaction have the same name. Therefore savepoints never pile up on the server.

use std::convert::Infallible;

use sqlx::AssertSqlSafe;

use crate::backend::Backend;
use crate::callback::TxFnOnce;
use crate::classify::Class;
use crate::error::{Error, Misuse, RollbackReason};
use crate::failure::Failure;
use crate::tx::handle::Tx;
use crate::tx::tx_state::TxState;

mod each;

/// The number of savepoints that a transaction keeps. PostgreSQL keeps the ids of this many subtransactions per
/// session in shared memory (`PGPROC_MAX_CACHED_SUBXIDS`). Released ones count, since they end with the
/// transaction; undone ones do not. With one more, every snapshot that is taken in the cluster at that time is
/// marked as overflowed, and each row version of the transaction that a reader meets costs a look into
/// `pg_subtrans`, also on standbys.
const KEPT_MAX: u32 = 64;
/// The number of savepoints at which a warning is logged.
const KEPT_WARN: u32 = 32;

impl<DB: Backend> Tx<'_, DB> {
    /// Runs `body` in a savepoint: what it wrote is kept if it returns `Ok`, and undone if it returns
    /// `Err` or if a statement in it failed. The transaction goes on in both cases.
    ///
    /// This is the place for a statement whose failure is an answer, such as an insert that may
    /// violate a constraint. The closure may change what it captures; it runs once.
    ///
    /// A conflict with another transaction is not absorbed: it means the whole transaction, which the
    /// run then starts over. Locks taken in a scope are gone when it is undone, so their witnesses do
    /// not leave it; [`Tx::adopt`] takes a witness in.
    ///
    /// A transaction holds at most 64 scopes that are open or kept: PostgreSQL remembers each of them until the
    /// transaction ends, and beyond 64 they slow the whole cluster down. For a list use
    /// [`scope_each`](Tx::scope_each).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction: it cannot be committed any more.
    ///
    /// # Errors
    ///
    /// [`Error::App`] with the closure's error; [`Error::RolledBack`] if it returned `Ok` and the
    /// scope could not be kept; [`Misuse::TooManyScopes`] beyond 64 scopes that are open or kept. After a
    /// [`Error::Misuse`] the transaction cannot be committed, and the run fails with it too: it is no answer to
    /// the closure's question.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
    /// use probity_txn::Error;
    ///
    /// probity_txn::on(pool, "register")
    ///     .run(async |tx| {
    ///         let fresh = tx
    ///             .scope(async |tx| {
    ///                 sqlx::query("INSERT INTO emails VALUES ('a@b.example')").execute(&mut *tx).await
    ///             })
    ///             .await;
    ///         match fresh {
    ///             Ok(_) => Ok(()),
    ///             // One failure is an answer. The others are failures.
    ///             Err(Error::App(sqlx::Error::Database(error))) if error.is_unique_violation() => {
    ///                 sqlx::query("INSERT INTO duplicates VALUES ('a@b.example')").execute(&mut *tx).await?;
    ///                 Ok(())
    ///             }
    ///             Err(Error::App(error)) => Err(error),
    ///             Err(other) => Err(sqlx::Error::InvalidArgument(other.to_string())),
    ///         }
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn scope<'s, F, T, E>(&'s mut self, body: F) -> impl Future<Output = Result<T, Error<E>>> + Send + 's
    where
        for<'t, 'x> F: AsyncFnOnce(&'t mut Tx<'x, DB>) -> Result<T, E>
            + TxFnOnce<&'t mut Tx<'x, DB>, Result<T, E>, Fut: Send>
            + Send
            + 's,
        T: Send + 's,
        E: Send + 's,
    {
        run_in_savepoint(&mut *self.state, body)
    }
}

/// Runs `body` in a savepoint.
async fn run_in_savepoint<DB, F, T, E>(state: &mut TxState<DB>, body: F) -> Result<T, Error<E>>
where
    DB: Backend,
    for<'t, 'x> F: AsyncFnOnce(&'t mut Tx<'x, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'x, DB>, Result<T, E>, Fut: Send>
        + Send,
    T: Send,
    E: Send,
{
    let scope = Scope::enter(state).await.map_err(lift)?;
    let result = body(&mut Tx::new(&mut *scope.state)).await;
    scope.leave(result).await
}

/// An open savepoint. Dropped without [`leave`](Scope::leave) it poisons the transaction.
struct Scope<'s, DB: Backend> {
    state: &'s mut TxState<DB>,
    number: u32,
    /// The number of scopes before this one: as many are left after it is undone.
    kept_before: u32,
    hooks: usize,
    left: bool,
}

impl<'s, DB: Backend> Scope<'s, DB> {
    async fn enter(state: &'s mut TxState<DB>) -> Result<Self, Error<Infallible>> {
        match state.guard.poison_reason() {
            Some(&RollbackReason::Misuse(misuse)) => return Err(Error::Misuse(misuse)),
            Some(reason) => return Err(Error::RolledBack(reason.clone())),
            None => {}
        }
        let kept_before = state.scopes.kept;
        match kept_before {
            KEPT_MAX.. => {
                let misuse = Misuse::TooManyScopes { limit: KEPT_MAX };
                state.guard.poison(RollbackReason::Misuse(misuse));
                return Err(Error::Misuse(misuse));
            }
            KEPT_WARN => {
                tracing::warn!(
                    label = state.settings.label,
                    "the transaction keeps {KEPT_WARN} scopes of {KEPT_MAX}; use scope_each for a list"
                )
            }
            _ => {}
        }
        state.scopes.opened += 1;
        state.scopes.kept += 1;
        let number = state.scopes.opened;
        let hooks = state.hooks.mark();
        let scope = Self { state, number, kept_before, hooks, left: false };
        scope.command(format!("SAVEPOINT probity_{number}")).await
    }

    /// Keeps or undoes what happened since the savepoint.
    async fn leave<T, E>(self, result: Result<T, E>) -> Result<T, Error<E>> {
        match (self.state.guard.take_poison(), result) {
            (None, Ok(value)) => self.keep().await.map(|()| value),
            (reason, result) => Err(self.undo(reason, result.err()).await),
        }
    }

    /// Keeps what happened since the savepoint.
    async fn keep<E>(self) -> Result<(), Error<E>> {
        let number = self.number;
        let mut scope = self.command(format!("RELEASE SAVEPOINT probity_{number}")).await.map_err(lift)?;
        scope.left = true;
        Ok(())
    }

    /// Undoes what happened since the savepoint, because of `reason`, of the closure's own error, or of both; says
    /// which. A reason that means the whole transaction is left in place.
    async fn undo<E>(mut self, reason: Option<RollbackReason>, error: Option<E>) -> Error<E> {
        if let Some(reason) = reason.clone()
            && self.state.ends_the_attempt(&reason)
        {
            self.state.guard.poison(reason.clone());
            self.left = true;
            return match (reason, error) {
                (RollbackReason::Misuse(misuse), _) => Error::Misuse(misuse),
                (_, Some(error)) => Error::App(error),
                (reason, None) => Error::RolledBack(reason),
            };
        }
        let number = self.number;
        let undo = format!("ROLLBACK TO SAVEPOINT probity_{number}; RELEASE SAVEPOINT probity_{number}");
        let mut scope = match self.command(undo).await {
            Ok(scope) => scope,
            Err(failed) => return lift(failed),
        };
        let (hooks, kept_before) = (scope.hooks, scope.kept_before);
        scope.state.hooks.forget_since(hooks);
        // The scopes inside it, kept or not, are gone as well.
        scope.state.scopes.kept = kept_before;
        scope.left = true;
        if matches!(&reason, Some(RollbackReason::StatementFailed(failure)) if failure.class() == Class::StalePlan)
        {
            scope.state.session.close_afterwards();
        }
        error.map_or_else(|| Error::RolledBack(reason.unwrap_or(RollbackReason::Requested)), Error::App)
    }

    /// Runs a savepoint command; if it fails, so does the transaction.
    async fn command(self, sql: String) -> Result<Self, Error<Infallible>> {
        let mut running = self.state.guard.start();
        match self.state.session.command(AssertSqlSafe(sql)).await {
            Ok(()) => {
                running.record_answer();
                drop(running);
                Ok(self)
            }
            Err(error) => {
                let failure = Failure::of::<DB>(&error);
                running.record_failure(failure.clone());
                drop(running);
                Err(Error::RolledBack(RollbackReason::StatementFailed(failure)))
            }
        }
    }
}

impl<DB: Backend> Drop for Scope<'_, DB> {
    fn drop(&mut self) {
        if !self.left {
            self.state.guard.poison(RollbackReason::ScopeAbandoned);
        }
    }
}

/// An error that carries no error of the closure fits every closure.
fn lift<E>(error: Error<Infallible>) -> Error<E> {
    error.map_app(|never| match never {})
}
