//! Stores whose local transactions are wrong in one way each, around one that is right.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::record::{
    Change, ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal,
    ListFilter, NewSaga, Record, SagaId, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, LocalTransaction, LocalVerdict, SagaStore};

/// The fault of a broken store with local steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFault {
    /// A worker that lost the saga commits.
    CommitsForAZombie,
    /// A repeated record commits a second effect.
    CommitsTwice,
    /// The record is written beside the transaction.
    RecordsWithoutTheEffect,
    /// The step row is not written.
    CommitsWithoutTheRecord,
    /// Each statement is its own transaction.
    CommitsEachStatement,
    /// A worker that believes in another status commits.
    IgnoresTheStatus,
    /// A record that is refused leaves its effect behind.
    KeepsRefusedEffects,
    /// The evidence of an undo is not written.
    LosesEvidence,
}

impl LocalFault {
    /// Each fault, with the clause that must catch it.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::CommitsForAZombie, "a_local_zombie_commits_neither"),
        (Self::CommitsTwice, "a_local_record_written_before_has_no_second_effect"),
        (Self::RecordsWithoutTheEffect, "a_local_effect_and_its_record_commit_together"),
        (Self::CommitsWithoutTheRecord, "a_local_effect_and_its_record_commit_together"),
        (Self::CommitsEachStatement, "a_local_effect_without_a_commit_is_not_there"),
        (Self::IgnoresTheStatus, "a_local_record_from_another_status_takes_its_effect_along"),
        (Self::KeepsRefusedEffects, "a_local_record_that_is_refused_takes_its_effect_along"),
        (Self::LosesEvidence, "a_local_undo_commits_with_its_evidence"),
    ];
}

/// A store with local transactions, and one fault in them.
#[derive(Clone)]
pub struct BrokenLocalStore {
    inner: Arc<dyn SagaStore>,
    fault: LocalFault,
}

impl BrokenLocalStore {
    /// Breaks a store that is right.
    pub fn new(inner: Arc<dyn SagaStore>, fault: LocalFault) -> Self {
        Self { inner, fault }
    }
}

impl fmt::Debug for BrokenLocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokenLocalStore").field("fault", &self.fault).finish_non_exhaustive()
    }
}

struct Broken {
    tx: Box<dyn LocalTransaction>,
    store: BrokenLocalStore,
}

#[async_trait]
impl LocalStore for BrokenLocalStore {
    async fn begin(&self, limit: Duration) -> Result<Box<dyn LocalTransaction>, StoreError> {
        let local = self.inner.local();
        let local = local.ok_or_else(|| StoreError::not_applied("begin", "no local transactions"))?;
        let mut tx = local.begin(limit).await?;
        if self.fault == LocalFault::CommitsEachStatement {
            end(tx.connection()).await?;
        }
        Ok(Box::new(Broken { tx, store: self.clone() }))
    }
}

/// Ends the transaction behind the back of its store.
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(unused_variables, reason = "no database")
)]
async fn end(connection: &mut (dyn Any + Send)) -> Result<(), StoreError> {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    let failed = |error: sqlx::Error| StoreError::not_applied("begin", error);
    #[cfg(feature = "sqlite")]
    if let Some(connection) = connection.downcast_mut::<sqlx::SqliteConnection>() {
        let _done = sqlx::raw_sql("COMMIT").execute(connection).await.map_err(failed)?;
        return Ok(());
    }
    #[cfg(feature = "postgres")]
    if let Some(connection) = connection.downcast_mut::<sqlx::PgConnection>() {
        let _done = sqlx::raw_sql("COMMIT").execute(connection).await.map_err(failed)?;
    }
    Ok(())
}

#[async_trait]
impl LocalTransaction for Broken {
    fn connection(&mut self) -> &mut (dyn Any + Send) {
        self.tx.connection()
    }

    async fn commit(self: Box<Self>, record: &Record) -> Result<LocalVerdict, StoreError> {
        let Self { tx, store } = *self;
        let mut record = record.clone();
        let stored = store.inner.load(&[record.saga]).await?.pop();
        match (store.fault, stored) {
            (LocalFault::CommitsForAZombie, Some(stored)) => record.epoch = stored.instance.epoch,
            (LocalFault::CommitsTwice, Some(stored)) => record.write_no = stored.instance.write_no + 1,
            (LocalFault::CommitsWithoutTheRecord, _) => record.change.steps.clear(),
            (LocalFault::IgnoresTheStatus, Some(stored)) => record.from = stored.instance.status,
            (LocalFault::LosesEvidence, _) => {
                record.change.steps.iter_mut().for_each(|row| row.evidence = None);
            }
            (LocalFault::KeepsRefusedEffects, _) if record.change.unresolved > 0 => {
                record.change =
                    Change { status: record.from, unresolved: 0, steps: Vec::new(), ..record.change };
                let _committed = tx.commit(&record).await?;
                return Ok(LocalVerdict::Refused("there are open effects".into()));
            }
            (LocalFault::RecordsWithoutTheEffect, _) => {
                drop(tx);
                let written = store.inner.apply(std::slice::from_ref(&record)).await?.pop();
                return Ok(match written {
                    Some(Verdict::Applied(requests)) => LocalVerdict::Applied(requests),
                    Some(Verdict::Refused(reason)) => LocalVerdict::Refused(reason),
                    Some(Verdict::Fenced) | None => LocalVerdict::Fenced,
                });
            }
            _ => {}
        }
        tx.commit(&record).await
    }
}

#[async_trait]
impl SagaStore for BrokenLocalStore {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        Some(self)
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.inner.heartbeat(worker).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.inner.retire(worker).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.inner.insert(sagas).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.inner.claim(request).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.inner.owned(worker).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.inner.apply(records).await
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.inner.intervene(intervention).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.inner.load(ids).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.inner.find(saga_type, business_id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(filter).await
    }
}
