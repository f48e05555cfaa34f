//! Points at which a worker can be stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::watched::World;
use crate::error::StoreError;
use crate::record::{
    Beat, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, Record, SagaId, Verdict, Worker, WorkerId,
};
use crate::store::{LocalStore, SagaStore};

/// Counts the points of one worker, and does something at one of them.
pub(super) struct Gate {
    cut: Option<usize>,
    at_cut: AtCut,
    passed: AtomicUsize,
    state: watch::Sender<State>,
}

enum AtCut {
    /// The worker stops here, and everywhere else, for ever or until the gate is opened.
    Stop,
    /// The worker is seen to be here, and goes on.
    Show,
    /// A stopped worker goes on.
    Release(Arc<Gate>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Seen,
    Tripped,
    Open,
}

impl Gate {
    fn new(cut: Option<usize>, at_cut: AtCut) -> Self {
        Self { cut, at_cut, passed: AtomicUsize::new(0), state: watch::Sender::new(State::Running) }
    }

    pub(super) fn stopping_at(point: usize) -> Self {
        Self::new(Some(point), AtCut::Stop)
    }

    pub(super) fn leaving_at(point: usize) -> Self {
        Self::new(Some(point), AtCut::Show)
    }

    pub(super) fn releasing_at(point: usize, stopped: Arc<Self>) -> Self {
        Self::new(Some(point), AtCut::Release(stopped))
    }

    pub(super) fn open_to_all() -> Self {
        Self::new(None, AtCut::Stop)
    }

    /// A point.
    pub(super) async fn pass(&self) {
        self.arrive().await;
        self.hold().await;
    }

    /// A point at which a worker that stops loses what it holds.
    pub(super) async fn pass_holding<T: Send>(&self, held: T) -> Option<T> {
        self.arrive().await;
        let stopped = *self.state.borrow() == State::Tripped;
        if stopped {
            drop(held);
            self.hold().await;
            return None;
        }
        Some(held)
    }

    async fn arrive(&self) {
        let point = self.passed.fetch_add(1, Ordering::SeqCst);
        if Some(point) == self.cut {
            match &self.at_cut {
                AtCut::Release(stopped) => {
                    stopped.open();
                    // Let it run into whatever it was about to do before this worker goes on.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                AtCut::Show => self.become_first(State::Seen),
                AtCut::Stop => self.become_first(State::Tripped),
            }
        }
    }

    fn become_first(&self, next: State) {
        self.state.send_if_modified(|state| {
            let running = *state == State::Running;
            if running {
                *state = next;
            }
            running
        });
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
        let reached = |state: &State| matches!(state, State::Tripped | State::Seen);
        if state.wait_for(reached).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Whether this worker was stopped and goes on now: what it does is late by design.
    pub(super) fn is_zombie(&self) -> bool {
        let stops = self.cut.is_some() && matches!(self.at_cut, AtCut::Stop);
        stops && *self.state.borrow() == State::Open
    }

    pub(super) fn points(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

/// A store behind a gate.
pub(super) struct GatedStore {
    pub(super) inner: Arc<dyn SagaStore>,
    pub(super) gate: Arc<Gate>,
    pub(super) world: Arc<World>,
}

impl GatedStore {
    pub(super) fn new(world: Arc<World>, gate: Arc<Gate>) -> Self {
        Self { inner: Arc::clone(&world.store), gate, world }
    }
}

#[async_trait]
impl SagaStore for GatedStore {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn local(&self) -> Option<&dyn LocalStore> {
        self.inner.local().map(|_| self as &dyn LocalStore)
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
