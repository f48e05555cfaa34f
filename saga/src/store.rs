//! The stores that keep sagas. [`MemoryStore`] is the specification; the others must behave like it.
//!
//! Write a store of your own with the names of this module: the trait [`SagaStore`], and the rows and writes that it
//! exchanges with the engine.
//!
//! Invariant: every method is atomic, may be repeated after a lost answer, and judges ownership by
//! the store's own clock. Start at [`SagaStore::apply`].

mod local;
mod memory;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migration;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod tables;

use async_trait::async_trait;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use futures_util::future::BoxFuture;

pub use local::{LocalStore, LocalTransaction, LocalVerdict, Runs};
pub use memory::MemoryStore;
#[cfg(all(feature = "postgres", feature = "testing"))]
#[doc(hidden)]
pub use postgres::plans;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresStoreBuilder};
#[cfg(all(any(test, fuzzing), any(feature = "sqlite", feature = "postgres")))]
pub(crate) use rows::fuzzing;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, SqliteStoreBuilder};

use crate::alert::tell_of_stop;
pub use crate::error::StoreError;
use crate::metrics;
pub use crate::record::{
    Change, ClaimRequest, Definition, Document, Heartbeat, Inserted, Instance, Intervened, Intervention,
    Journal, NewSaga, OpenCounts, Record, Requests, Settled, StepRow, Verdict, Worker, WorkerId,
};
use crate::record::{ListFilter, SagaId};
use crate::status::Status;

/// A place that keeps sagas. Object-safe and batch-shaped: one call, one round trip, many sagas.
#[async_trait]
pub trait SagaStore: Send + Sync + 'static {
    /// The name of the database, as sqlx calls it (`SQLite`, `PostgreSQL`); transactions of another
    /// database are refused.
    fn backend(&self) -> &'static str;

    /// Its transactions for local steps; `None` if it has none, and then no saga with local steps is
    /// registered with it.
    fn local(&self) -> Option<&dyn LocalStore> {
        None
    }

    /// Renews the lease of a worker, and creates it if it is missing.
    ///
    /// # Cancel safety
    /// The beat may or may not have been written; beat again.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError>;

    /// Releases everything a worker owns, and removes the worker. Answers how many it released.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError>;

    /// Records the definitions that a worker runs.
    ///
    /// # Cancel safety
    /// May be repeated.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError>;

    /// Inserts sagas, owned by their worker with epoch 1. One answer per saga, in order.
    ///
    /// # Cancel safety
    /// A repeated insert of the same id is answered as the first one.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError>;

    /// Takes over sagas whose owner is missing or expired, raising their epoch, and loads them. A worker gets no saga
    /// unless its last heartbeat is younger than half of its lease, by the store's clock: a call that was held up by an
    /// outage would otherwise take sagas from living workers that could not send a heartbeat either. The claim does not
    /// treat the worker's own sagas as lost; it hands out those that the request names. No wait is longer than an hour:
    /// a saga whose wait ends more than 61 minutes from now is due, because a clock was wrong when that was written.
    ///
    /// A saga at the poison limit is paused instead of handed out. At most as many suspects are handed out as the
    /// request allows (S-7, S-11).
    ///
    /// # Cancel safety
    /// A lost answer leaves sagas owned but not driven; [`owned`](Self::owned) finds them.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError>;

    /// The active sagas that a worker owns.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError>;

    /// The requests of operators that stand for the active sagas of a worker, for drivers that have nothing to write.
    /// Unless a store can say it for less, it is read from what [`load`](Self::load) answers.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        let loaded = self.load(&self.owned(worker).await?).await?;
        let asked = loaded.into_iter().map(|journal| {
            let Instance { id, cancel_requested: cancel, pause_requested: pause, .. } = journal.instance;
            (id, Requests { cancel, pause })
        });
        Ok(asked.filter(|(_, asked)| asked.pause || asked.cancel.is_some()).collect())
    }

    /// Writes results. Each record is applied if the saga still has the record's epoch and status,
    /// refused otherwise, whatever happens to the others (S-1, S-6). One verdict per record, in
    /// order; at most one record per saga in a call.
    ///
    /// # Cancel safety
    /// A repeated record is answered, not applied again.
    ///
    /// # Errors
    /// If the store cannot be used; then repeat the call.
    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError>;

    /// Applies an operator's decision if the saga has the version the operator saw, together with
    /// its audit row. A change raises the epoch, releases the owner and clears an earlier request to pause. A change that
    /// would end the saga as `completed` or `compensated` while effects are open is an error.
    ///
    /// # Cancel safety
    /// A repeated decision is [`Intervened::Stale`]; look again.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError>;

    /// Loads sagas by id; those that do not exist are missing in the answer.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError>;

    /// Loads one saga by its business id.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError>;

    /// Lists sagas, newest first.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError>;

    /// Answers those of the sagas that are at rest, for callers who wait for them. Unless a store can say it for
    /// less, it is read from what [`load`](Self::load) answers.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        let loaded = self.load(ids).await?;
        Ok(loaded.iter().filter_map(|journal| Settled::of(&journal.instance)).collect())
    }

    /// The statement by which `Orchestrator::start_in` inserts a saga. `None`, which is the default, is that of the
    /// usual table names, found by the search path of the caller's session. A store that wraps another one passes its
    /// answer on.
    fn start_statement(&self) -> Option<StartStatement> {
        None
    }

    /// Counts the open sagas for the gauges; a store that cannot do it for little answers nothing. `runnable` are the
    /// definitions of the worker that asks, as (type, fingerprint).
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the store cannot be used.
    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        let _unknown = runnable;
        Ok(Vec::new())
    }
}

/// The statement by which a store inserts one saga on a connection that is not its own.
#[derive(Debug, Clone)]
pub struct StartStatement {
    /// The INSERT, with the names of the store's tables.
    pub sql: std::sync::Arc<str>,
    /// The permission to keep it prepared by name on that connection, which a pooler in transaction mode does not allow.
    pub named: bool,
}

/// A database whose transactions can start a saga: `Orchestrator::start_in`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub trait StartIn: sqlx::Database {
    /// Inserts one saga with a single statement on the caller's connection.
    ///
    /// `statement` is what the store's [`SagaStore::start_statement`] answered.
    ///
    /// Boxed, so that it is `Send` by its type: of an opaque future the compiler would have to prove it for every
    /// lifetime of the executor, which it cannot do inside a transaction's closure (rust-lang/rust#100013).
    ///
    /// # Cancel safety
    /// The statement may have been executed; it takes effect with the caller's commit.
    ///
    /// # Errors
    /// If the database fails.
    fn insert_in<'c, E>(
        executor: E,
        statement: Option<StartStatement>,
        saga: NewSaga,
    ) -> BoxFuture<'c, Result<Inserted, StoreError>>
    where
        E: sqlx::Executor<'c, Database = Self> + 'c;
}

/// Tells of a saga that the claim parked.
fn tell_of_poison(id: impl std::fmt::Display, saga_type: &str, business_id: &str) {
    tell_of_stop(id, saga_type, business_id, Status::Paused, Some("it made no progress in many claims"));
    metrics::saga_poisoned();
    metrics::transition(saga_type.to_owned(), Status::Paused);
}

/// Says why the claim parked a saga; the reason that was stored before stays.
fn poison_reason(before: Option<&str>, claims: u32) -> String {
    let before = before.map(|before| format!("{before}; ")).unwrap_or_default();
    format!(
        "{before}poison: {claims} claims in a row ended without progress; see what its step does to the worker, then resume"
    )
}
