//! Steps whose effect is rows in the database of the saga store: effect and record are one commit.
//!
//! Invariant: a local step is never in doubt. Its record is there exactly if its effect is, so no worker
//! asks about it and nothing undoes what did not happen. Start at [`LocalStep`].

use std::future::Future;
use std::time::Duration;

use crate::policy::{Backoff, StepPolicy};
use crate::step::context::StepContext;
use crate::step::output::{Forward, StepOutput, Undoable};
use crate::step::{Evidence, Payload, StepError};

/// A database in which a store keeps sagas and a step may have its effect. Sealed.
#[diagnostic::on_unimplemented(
    message = "no saga store is in the database `{Self}`",
    note = "local steps are on `sqlx::Postgres` (feature `postgres`) or `sqlx::Sqlite` (feature `sqlite`)"
)]
pub trait LocalDatabase: sqlx::Database<Connection: Send + 'static> + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    #[cfg(feature = "postgres")]
    impl Sealed for sqlx::Postgres {}
    #[cfg(feature = "sqlite")]
    impl Sealed for sqlx::Sqlite {}
}

#[cfg(feature = "postgres")]
impl LocalDatabase for sqlx::Postgres {}
#[cfg(feature = "sqlite")]
impl LocalDatabase for sqlx::Sqlite {}

/// A step whose effect is rows in the database that also holds the sagas, with its undo.
///
/// It gets a connection inside a transaction of the store. When `execute` answers `Ok`, the record of
/// the step is written in the same transaction, fenced by the epoch of this worker, and both commit or
/// neither does (S-9). Therefore the effect happens exactly once, without a key and without a probe, and `compensate`
/// is called only for an effect that is there, with its output.
///
/// An attempt that does not answer `Ok` is rolled back: an error, a panic, a timeout, a worker that lost the saga
/// at that time. `?` on any error is therefore tried again as [`StepError::Retryable`]; so are conflicts
/// of the database (deadlock, serialization failure, a busy file). Only
/// [`StepError::Rejected`] turns the saga back at once. When the database cannot be reached, the step
/// waits for it by the [`patience`](StepPolicy::patience) of its policy, as other steps wait for a provider: that is not
/// a failure of the step, requests of operators end the wait, and a saga that waits for long is not held in memory.
///
/// The transaction is only for rows of this database. A call to another system made here happens even
/// if the transaction does not: that is a [`SagaStep`](crate::SagaStep).
///
/// On PostgreSQL the transaction is READ COMMITTED unless the first statement is `SET TRANSACTION`, a
/// statement may take as long as the step, and a swallowed error of a statement undoes the attempt. On
/// SQLite it holds the one write lock of the file, so keep it short. A step that ends the transaction
/// itself is found out, and its saga is paused.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")] {
/// use probity_saga::{Evidence, LocalStep, Saga, StepContext, StepError};
/// use sqlx::{Sqlite, SqliteConnection};
///
/// struct ReserveStock;
///
/// impl LocalStep<Sqlite> for ReserveStock {
///     type Input = String; // the article
///     type Output = i64;
///     const NAME: &'static str = "ReserveStock";
///
///     async fn execute(&self, cx: &StepContext<String>, tx: &mut SqliteConnection) -> Result<i64, StepError> {
///         sqlx::query_scalar("UPDATE stock SET free = free - 1 WHERE article = $1 AND free > 0 RETURNING free")
///             .bind(cx.input())
///             .fetch_optional(tx)
///             .await?
///             .ok_or_else(|| StepError::rejected("sold out"))
///     }
///
///     async fn compensate(
///         &self,
///         cx: &StepContext<String>,
///         _left: i64,
///         tx: &mut SqliteConnection,
///     ) -> Result<Evidence, StepError> {
///         sqlx::query("UPDATE stock SET free = free + 1 WHERE article = $1").bind(cx.input()).execute(tx).await?;
///         Ok(Evidence::new(format!("one {} is free again", cx.input())))
///     }
/// }
///
/// let saga = Saga::named("order").local_step(ReserveStock).build()?;
/// # let _ = saga;
/// # }
/// # Ok::<(), probity_saga::BuildError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a local step on `{DB}`",
    note = "implement `LocalStep<{DB}>`, or `LocalForwardStep<{DB}>` for a step without undo, and give it to `local_step`"
)]
pub trait LocalStep<DB: LocalDatabase>: Send + Sync + 'static {
    /// The input of the saga this step belongs to.
    type Input: Payload;
    /// The output of `execute`. It is stored, and given to later steps and to `compensate`.
    type Output: Payload;
    /// The identity of the step in stored sagas: rename a step only together with its version.
    const NAME: &'static str;
    /// The steps whose outputs this one reads; see [`SagaStep::USES`](crate::SagaStep::USES).
    const USES: &'static [&'static str] = &[];

    /// Has the effect, in the transaction. The effect stays only if this answers `Ok` and the record commits.
    fn execute(
        &self,
        cx: &StepContext<Self::Input>,
        tx: &mut DB::Connection,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Takes it back, in a transaction that also holds the record of the undo, and says what proves it.
    /// `done` is always known, and the undo happens exactly once.
    fn compensate(
        &self,
        cx: &StepContext<Self::Input>,
        done: Self::Output,
        tx: &mut DB::Connection,
    ) -> impl Future<Output = Result<Evidence, StepError>> + Send;

    /// Retries and timeout: those of other steps, but five seconds for an attempt, because its locks
    /// are held for so long, and waits for the database that begin with 50 ms. The settings for unknown outcomes have
    /// no effect here.
    fn policy(&self) -> StepPolicy {
        local_policy()
    }
}

/// A local step that has no undo: a pivot, or anything after one. Before a pivot the builder asks for
/// the reason. Otherwise as [`LocalStep`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `LocalForwardStep` on `{DB}`",
    note = "a local pivot, and every local step after a pivot, is never undone: implement `LocalForwardStep<{DB}>` for it"
)]
pub trait LocalForwardStep<DB: LocalDatabase>: Send + Sync + 'static {
    /// The input of the saga this step belongs to.
    type Input: Payload;
    /// The output of `execute`.
    type Output: Payload;
    /// The identity of the step in stored sagas.
    const NAME: &'static str;
    /// The steps whose outputs this one reads; see [`SagaStep::USES`](crate::SagaStep::USES).
    const USES: &'static [&'static str] = &[];

    /// Does it, in the transaction; see [`LocalStep::execute`].
    fn execute(
        &self,
        cx: &StepContext<Self::Input>,
        tx: &mut DB::Connection,
    ) -> impl Future<Output = Result<Self::Output, StepError>> + Send;

    /// Retries and timeout; see [`LocalStep::policy`].
    fn policy(&self) -> StepPolicy {
        local_policy()
    }
}

/// The database is near, so the first waits for it are short; together they are about an hour, as those of other steps.
fn local_policy() -> StepPolicy {
    let patience = Backoff::doubling(24, Duration::from_millis(50), Duration::from_secs(300));
    StepPolicy::default().timeout(Duration::from_secs(5)).patience(patience.jittered())
}

impl<DB: LocalDatabase, S: LocalStep<DB>> StepOutput<(DB, Undoable)> for S {
    type Value = S::Output;
    const STEP: &'static str = S::NAME;
}

impl<DB: LocalDatabase, S: LocalForwardStep<DB>> StepOutput<(DB, Forward)> for S {
    type Value = S::Output;
    const STEP: &'static str = S::NAME;
}
