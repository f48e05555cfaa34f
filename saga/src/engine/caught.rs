//! A store whose panics are errors: a task of the worker that died of one would leave it half alive, with a lease that
//! keeps everybody else away.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::error::StoreError;
use crate::record::{
    Beat, Census, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal,
    ListFilter, NewSaga, Record, Requests, Rested, SagaId, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, SagaStore, StartStatement};

pub(super) struct Caught(pub(super) Arc<dyn SagaStore>);

/// The call may have been applied before it panicked.
async fn caught<T, F>(operation: &'static str, call: impl FnOnce() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // The call itself may panic, before there is a future.
    let called = AssertUnwindSafe(async { call().await }).catch_unwind().await;
    called.unwrap_or_else(|panic| Err(StoreError::panicked(operation, text(panic))))
}

/// What a panic said.
pub(super) fn text(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast_ref::<&str>().map_or_else(|| "no text".into(), ToString::to_string),
    }
}

#[async_trait]
impl SagaStore for Caught {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    /// A panic in a transaction is the driver's, which parks its saga.
    fn local(&self) -> Option<&dyn LocalStore> {
        self.0.local()
    }

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        caught("renew a worker's lease", || self.0.beat(worker)).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        caught("retire a worker", || self.0.retire(worker)).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        caught("record the saga definitions", || self.0.define(definitions)).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        caught("insert sagas", || self.0.insert(sagas)).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        caught("claim sagas", || self.0.claim(request)).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        caught("list a worker's sagas", || self.0.owned(worker)).await
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        caught("ask for requests of operators", || self.0.asked(worker)).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        caught("write saga results", || self.0.apply(records)).await
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        caught("apply an operator's decision", || self.0.intervene(intervention)).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        caught("load sagas", || self.0.load(ids)).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        caught("find a saga", || self.0.find(saga_type, business_id)).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        caught("list sagas", || self.0.list(filter)).await
    }

    async fn rested(&self, ids: &[SagaId]) -> Result<Vec<Rested>, StoreError> {
        caught("ask which sagas came to rest", || self.0.rested(ids)).await
    }

    fn start_statement(&self) -> Option<StartStatement> {
        self.0.start_statement()
    }

    async fn census(&self, runnable: &[(String, String)]) -> Result<Vec<Census>, StoreError> {
        caught("count the open sagas", || self.0.census(runnable)).await
    }
}
