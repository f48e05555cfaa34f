//! A store whose panics are errors. A panic would otherwise end a task of the worker, which would then keep its lease,
//! and other workers away from its sagas, without driving them.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::error::StoreError;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, SagaStore, StartStatement};

pub(super) struct CatchPanic(pub(super) Arc<dyn SagaStore>);

/// The call may have been applied before it panicked.
async fn catch_panic<T, F>(operation: &'static str, call: impl FnOnce() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // The call itself may panic, before there is a future.
    let called = AssertUnwindSafe(async { call().await }).catch_unwind().await;
    called.unwrap_or_else(|panic| Err(StoreError::panicked(operation, panic_text(panic))))
}

/// Reads the message of a panic.
pub(super) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast_ref::<&str>().map_or_else(|| "no text".into(), ToString::to_string),
    }
}

#[async_trait]
impl SagaStore for CatchPanic {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    /// A panic in a transaction is the driver's, which parks its saga.
    fn local(&self) -> Option<&dyn LocalStore> {
        self.0.local()
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        catch_panic("renew a worker's lease", || self.0.heartbeat(worker)).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        catch_panic("retire a worker", || self.0.retire(worker)).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        catch_panic("record the saga definitions", || self.0.define(definitions)).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        catch_panic("insert sagas", || self.0.insert(sagas)).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        catch_panic("claim sagas", || self.0.claim(request)).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        catch_panic("list a worker's sagas", || self.0.owned(worker)).await
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        catch_panic("ask for requests of operators", || self.0.asked(worker)).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        catch_panic("write saga results", || self.0.apply(records)).await
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        catch_panic("apply an operator's decision", || self.0.intervene(intervention)).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        catch_panic("load sagas", || self.0.load(ids)).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        catch_panic("find a saga", || self.0.find(saga_type, business_id)).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        catch_panic("list sagas", || self.0.list(filter)).await
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        catch_panic("ask which sagas came to rest", || self.0.settled(ids)).await
    }

    fn start_statement(&self) -> Option<StartStatement> {
        self.0.start_statement()
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        catch_panic("count the open sagas", || self.0.open_counts(runnable)).await
    }
}
