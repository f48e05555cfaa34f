//! Points at which a worker can be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::StoreError;
use crate::record::{
    Beat, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, Record, SagaId, Verdict, Worker, WorkerId,
};
use crate::store::{MemoryStore, SagaStore};

/// Stops one worker at one point, for ever or until it is opened.
pub(super) struct Gate {
    cut: Option<usize>,
    /// Whom to let go on at the cut, instead of stopping.
    releases: Option<Arc<Gate>>,
    passed: AtomicUsize,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Tripped,
    Open,
}

impl Gate {
    pub(super) fn new(cut: Option<usize>, releases: Option<Arc<Self>>) -> Self {
        Self { cut, releases, passed: AtomicUsize::new(0), state: watch::Sender::new(State::Running) }
    }

    /// A point. At the cut, the worker stops here, and everywhere else.
    pub(super) async fn pass(&self) {
        let point = self.passed.fetch_add(1, Ordering::SeqCst);
        if let (true, Some(stopped)) = (Some(point) == self.cut, &self.releases) {
            stopped.open();
            // Let it run into whatever it was about to do before this worker goes on.
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else if Some(point) == self.cut {
            self.state.send_if_modified(|state| {
                let running = *state == State::Running;
                if running {
                    *state = State::Tripped;
                }
                running
            });
        }
        self.hold().await;
    }

    /// Not a point of its own, but a stopped worker does not get past it.
    pub(super) async fn hold(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| *state != State::Tripped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn tripped(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| *state == State::Tripped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Whether this worker was stopped and goes on now: what it does is late by design.
    pub(super) fn is_zombie(&self) -> bool {
        self.cut.is_some() && self.releases.is_none() && *self.state.borrow() == State::Open
    }

    pub(super) fn points(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

/// A memory store behind a gate.
pub(super) struct GatedStore {
    inner: Arc<MemoryStore>,
    gate: Arc<Gate>,
}

impl GatedStore {
    pub(super) fn new(inner: Arc<MemoryStore>, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

#[async_trait]
impl SagaStore for GatedStore {
    fn backend(&self) -> &'static str {
        "explored"
    }

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        self.gate.hold().await;
        self.inner.beat(worker).await
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        self.gate.hold().await;
        self.inner.retire(worker).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.gate.pass().await;
        let answer = self.inner.insert(sagas).await;
        self.gate.pass().await;
        answer
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        self.gate.hold().await;
        let claimed = self.inner.claim(request).await?;
        if !claimed.is_empty() {
            self.gate.pass().await;
        }
        Ok(claimed)
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.gate.hold().await;
        self.inner.owned(worker).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        self.gate.pass().await;
        let answer = self.inner.apply(records).await;
        self.gate.pass().await;
        answer
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        self.gate.hold().await;
        self.inner.intervene(intervention).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        self.gate.hold().await;
        self.inner.load(ids).await
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.gate.hold().await;
        self.inner.find(saga_type, business_id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        self.gate.hold().await;
        self.inner.list(filter).await
    }
}
