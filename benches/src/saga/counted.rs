//! A store that counts what the engine writes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use probity_saga::store::{
    ClaimRequest, Definition, Heartbeat, Inserted, Intervened, Intervention, Journal, NewSaga, Record,
    SagaStore, Verdict, Worker, WorkerId,
};
use probity_saga::{
    ListFilter, SagaId,
    store::{Instance, StoreError},
};

/// The number of records and commits that were written.
#[derive(Debug, Default)]
pub(super) struct Count {
    records: AtomicU64,
    commits: AtomicU64,
}

impl Count {
    /// Records and commits since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        (self.records.swap(0, Ordering::Relaxed), self.commits.swap(0, Ordering::Relaxed))
    }

    fn add(&self, records: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

/// A store and the count of its writes.
pub(super) struct Counted<S> {
    pub(super) store: S,
    pub(super) count: Arc<Count>,
}

#[async_trait]
impl<S: SagaStore> SagaStore for Counted<S> {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.store.heartbeat(worker).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.store.retire(worker).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.store.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.count.add(sagas.len());
        self.store.insert(sagas).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.store.claim(request).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.store.owned(worker).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.count.add(records.len());
        self.store.apply(records).await
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.store.intervene(intervention).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.store.load(ids).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.store.find(saga_type, business_id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.store.list(filter).await
    }
}
