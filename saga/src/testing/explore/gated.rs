//! A store behind a gate: each call is a point before it and one after it.

use std::sync::Arc;

use async_trait::async_trait;

use super::gate::{Gate, Side};
use super::instrumented_step::World;
use crate::error::StoreError;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, SagaStore, StartStatement};

pub(super) struct GatedStore {
    pub(super) inner: Arc<dyn SagaStore>,
    pub(super) gate: Arc<Gate>,
    pub(super) world: Arc<World>,
}

impl GatedStore {
    pub(super) fn new(world: &Arc<World>, gate: &Arc<Gate>) -> Self {
        Self { inner: Arc::clone(&world.store), gate: Arc::clone(gate), world: Arc::clone(world) }
    }
}

macro_rules! between {
    ($self:ident, $weight:ident, $call:literal, $answer:expr) => {{
        $self.gate.$weight(concat!("before `", $call, "`")).await;
        let answer = $answer.await;
        $self.gate.$weight(concat!("after `", $call, "`")).await;
        answer
    }};
}

#[async_trait]
impl SagaStore for GatedStore {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        self.inner.local().map(|_| self as &dyn LocalStore)
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        self.gate.is_passed_by(worker.id);
        between!(self, read_point, "beat", self.inner.heartbeat(worker))
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.gate.leave(Side::Before).await;
        let answer = self.inner.retire(worker).await;
        self.gate.leave(Side::After).await;
        answer
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        between!(self, read_point, "define", self.inner.define(definitions))
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        between!(self, write_point, "insert", self.inner.insert(sagas))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.gate.read_point("before `claim`").await;
        let claimed = self.inner.claim(request).await;
        match &claimed {
            Ok(taken) if !taken.is_empty() => self.gate.write_point("after `claim`").await,
            _ => self.gate.read_point("after `claim`").await,
        }
        claimed
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        between!(self, read_point, "owned", self.inner.owned(worker))
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        between!(self, read_point, "asked", self.inner.asked(worker))
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        between!(self, write_point, "apply", self.inner.apply(records))
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        between!(self, write_point, "intervene", self.inner.intervene(intervention))
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        between!(self, read_point, "load", self.inner.load(ids))
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        between!(self, read_point, "find", self.inner.find(saga_type, business_id))
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        between!(self, read_point, "list", self.inner.list(filter))
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        between!(self, read_point, "rested", self.inner.settled(ids))
    }

    fn start_statement(&self) -> Option<StartStatement> {
        self.inner.start_statement()
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        between!(self, read_point, "census", self.inner.open_counts(runnable))
    }
}
