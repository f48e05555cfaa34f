//! The builder: what to run, where, under which limits.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use sqlx::Pool;

use crate::backend::Backend;
use crate::builder::once::Once;
use crate::callback::TxFnOnce;
use crate::error::Error;
use crate::isolation::Isolation;
use crate::policy::Policy;
use crate::run::run;
use crate::settings::Settings;
use crate::token_table::TokenTable;
use crate::tx::handle::Tx;

pub(crate) mod once;

/// Starts to describe a transaction on `pool`.
///
/// `label` names the operation, not the request: it becomes a metrics label and appears in every
/// warning (`"capture"`, `"payout.approve"`).
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
/// use std::time::Duration;
///
/// probity_txn::on(pool, "capture")
///     .deadline(Duration::from_secs(2))
///     .run(async |tx| {
///         sqlx::query("UPDATE payments SET status = 'captured' WHERE id = 7").execute(&mut *tx).await?;
///         Ok(())
///     })
///     .await
/// # }
/// ```
pub fn on<'p, DB: Backend>(pool: &'p Pool<DB>, label: &'static str) -> Txn<'p, DB> {
    Txn { pool, settings: Settings::new(label) }
}

/// A transaction that has not begun. Made by [`on`], started by [`run`](Txn::run).
#[must_use = "nothing happens before `run`"]
pub struct Txn<'p, DB: Backend> {
    pool: &'p Pool<DB>,
    pub(crate) settings: Settings,
}

impl<'p, DB: Backend> Txn<'p, DB> {
    /// Chooses how much the transaction sees of others. The default on PostgreSQL is READ COMMITTED, under any
    /// `default_transaction_isolation`; SQLite is always serializable.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.settings.isolation = Some(isolation);
        self
    }

    /// Replaces all limits at once.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Sets how many attempts there may be, the first included.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.policy.attempts = attempts;
        self
    }

    /// Takes the pauses between attempts from `schedule`, in place of the policy's; it is reset when the run begins.
    /// When it has no further pause the run gives up, as it does after
    /// [`attempts`](Policy::attempts) or at the [`deadline`](Policy::deadline). A COMMIT that got no answer is still
    /// looked up, with the policy's pauses.
    ///
    /// The crate `backoff` is not maintained (RUSTSEC-2025-0012, RUSTSEC-2024-0384); the feature is for callers
    /// that have its schedules already.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # fn example(pool: &sqlx::SqlitePool) {
    /// let schedule = backoff::ExponentialBackoffBuilder::new()
    ///     .with_initial_interval(std::time::Duration::from_millis(5))
    ///     .build();
    /// let capture = probity_txn::on(pool, "capture").backoff(schedule);
    /// # let _ = capture;
    /// # }
    /// ```
    #[cfg(feature = "backoff")]
    pub fn backoff(mut self, schedule: impl backoff::backoff::Backoff + Send + 'static) -> Self {
        self.settings.schedule = crate::schedule::Schedule::from_backoff(schedule);
        self
    }

    /// Sets by when COMMIT must have been sent.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.policy.deadline = deadline;
        self
    }

    /// Declares that the closure only reads. The database refuses writes, and SQLite does not take
    /// the write lock; so nothing can be locked ([`LockError::ReadOnly`](crate::lock::LockError::ReadOnly)).
    pub fn read_only(mut self) -> Self {
        self.settings.read_only = true;
        self
    }

    /// Lets at most `limit` runs of this label be in flight in this process; the others wait without
    /// a connection. For labels that fight over few rows this is faster than letting them all in.
    ///
    /// Runs share a limit if they have the same label and the same limit.
    pub fn max_in_flight(mut self, limit: usize) -> Self {
        self.settings.in_flight_max = Some(limit);
        self
    }

    /// Says that a pooler in transaction mode stands between (PgBouncer): no statement of the run, yours included, is
    /// kept in the session under a name. The chapter `guide::poolers` says what else it takes.
    pub fn behind_pooler(mut self) -> Self {
        self.settings.policy.behind_pooler = true;
        self
    }

    /// Makes the run take effect once per `token`, and return the same result to each run with it.
    ///
    /// The token names the operation (`"capture:PAY-1"`), not the attempt, and must be the same in every repetition of
    /// the run: take it from the request, never make it here. It needs the table that
    /// [`create_token_table`](crate::create_token_table) creates.
    pub fn once(self, token: impl Into<String>) -> Once<'p, DB> {
        let mut settings = self.settings;
        settings.locals.after_the_token = true;
        Once { pool: self.pool, settings, token: token.into(), table: TokenTable::new() }
    }

    /// Runs `body` in a transaction and commits it; `Ok` means that it is durable.
    ///
    /// `Err` from the closure rolls back and comes back as [`Error::App`]. A conflict with another
    /// transaction, in a statement or in COMMIT, starts over: a fresh transaction and a fresh clone
    /// of the closure, after a random pause. Therefore the closure may run several times, and its effects outside the
    /// transaction happen each time. Its captured values are those of the first call.
    ///
    /// Captured references work, also inside axum handlers and [`tokio::spawn`]. A captured `&mut` does not compile: a
    /// retry would find the changes of the last attempt.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop at any point. Before COMMIT was sent the transaction is rolled back, by a task
    /// that holds the connection until that is done. From then on the commit completes in a task of
    /// its own; only its outcome is not reported.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::effect`] says whether the writes may have happened.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime. A panic of the closure rolls back and continues.
    pub fn run<'a, F, T, E>(self, body: F) -> impl Future<Output = Result<T, Error<E>>> + Send + 'a
    where
        'p: 'a,
        for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
            + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        T: Send + 'a,
        E: Send + 'a,
    {
        run(self.pool, self.settings, None, body)
    }
}

impl<DB: Backend> fmt::Debug for Txn<'_, DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn").field("settings", &self.settings).finish_non_exhaustive()
    }
}
