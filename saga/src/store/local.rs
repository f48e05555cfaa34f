//! Transactions of a store in which a local step has its effect.
//!
//! Invariant: of effect and record both are there or neither is; a worker that lost the saga commits
//! neither (S-9, S-6).

use std::any::Any;
use std::time::Duration;

use async_trait::async_trait;

use super::SagaStore;
use crate::definition::AnyStore;
use crate::error::StoreError;
use crate::record::{Record, Requests};

/// A record after this could be without its effect, or an effect without its record.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) const ENDED_BY_THE_STEP: &str = "its transaction is over, ended by a statement of the step or by the database; whether the effect is there is unknown";

/// A store whose database can also hold the effects of steps. Answered by [`SagaStore::local`].
#[async_trait]
pub trait LocalStore: Send + Sync {
    /// Begins a transaction for a step that may take as long as `limit`.
    ///
    /// # Cancel safety
    /// Dropped, nothing has happened.
    ///
    /// # Errors
    /// If the database cannot be used; nothing has happened.
    async fn begin(&self, limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError>;
}

/// A transaction that waits for an effect and its record. Dropped, it is rolled back.
#[async_trait]
pub trait LocalTransaction: Send {
    /// The connection, which is the `Connection` of the database that [`SagaStore::backend`] names. The
    /// step has its effect on it.
    fn connection(&mut self) -> &mut (dyn Any + Send);

    /// Writes the record, if the saga still has the record's epoch and status and this number was not
    /// written before, and commits it together with the effect. Otherwise both are rolled back.
    ///
    /// # Cancel safety
    /// Not cancel safe: whether it was committed is then in the saga's row.
    ///
    /// # Errors
    /// With [`Effect::NotApplied`](crate::Effect) neither is there. With
    /// [`Effect::Unknown`](crate::Effect) the answer to the commit was lost: both are there or neither,
    /// and the saga's row says which, to the worker that claims it.
    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError>;
}

/// The answer to the commit of an effect and its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "only `Applied` means that the effect is there"]
pub enum LocalVerdict {
    /// Both are committed. With it come the requests of operators.
    Applied(Requests),
    /// Neither: another driver owns the saga, or this number was written before.
    Fenced,
    /// Neither: the store refuses this record, or cannot vouch for the transaction any more.
    Refused(String),
    /// Neither: the database ended the transaction (a conflict, a deferred constraint, an error of a
    /// statement that the step did not pass on). The step may be tried again.
    RolledBack(String),
}

/// Of a store with one impl of [`Runs`] the compiler would infer the saga's database and call it a mismatched type,
/// without the message that helps.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct NowhereElse;

/// A store that may run sagas whose local steps are on `D`. For a store of your own that answers
/// [`SagaStore::local`], say it with one empty impl. Behind `dyn SagaStore` it is checked when the
/// orchestrator starts.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run a saga whose local steps are on `{D}`",
    note = "a local step and its record commit together, so the saga store must be in the same database: `PostgresStore` for `Postgres`, `SqliteStore` for `Sqlite`; `MemoryStore` has no transactions"
)]
pub trait Runs<D> {}

impl<S: SagaStore> Runs<AnyStore> for S {}
impl<S: SagaStore> Runs<NowhereElse> for S {}
impl<D> Runs<D> for dyn SagaStore {}
#[cfg(feature = "postgres")]
impl Runs<sqlx::Postgres> for super::PostgresStore {}
#[cfg(feature = "sqlite")]
impl Runs<sqlx::Sqlite> for super::SqliteStore {}
