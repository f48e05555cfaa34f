//! The store in memory: the executable specification, and the store of unit tests.
//!
//! Invariant: one mutex, so every method is one atomic step; its clock is tokio's, so tests can
//! pause it. The sagas are lost with the process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::SagaStore;
use crate::core::{Trigger, transition};
use crate::error::StoreError;
use crate::policy::{FARTHEST_BELIEVED, LONGEST};
use crate::record::{
    Change, ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal,
    ListFilter, NewSaga, OpenCounts, Record, Requests, SagaId, StepRow, Verdict, Worker, WorkerId,
};
use crate::status::Status;

/// Keeps sagas in this process. For tests, examples and the specification of all other stores.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    sagas: BTreeMap<SagaId, Saga>,
    business: HashMap<(String, String), SagaId>,
    leases: BTreeMap<WorkerId, Lease>,
    definitions: BTreeMap<String, Definition>,
    audit: Vec<Intervention>,
}

struct Lease {
    expires: Instant,
    length: Duration,
}

struct Saga {
    instance: Instance,
    /// By order.
    steps: Vec<StepRow>,
    /// When the rows of waiting steps were written.
    waits: BTreeMap<u32, Instant>,
    run_at: Instant,
    created_at: Instant,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every operator decision that was applied, oldest first.
    #[must_use]
    pub fn audit(&self) -> Vec<Intervention> {
        self.lock().audit.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held cannot leave half a write behind: each method checks
        // first and then assigns.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("sagas", &self.lock().sagas.len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn is_live(&self, worker: WorkerId, now: Instant) -> bool {
        self.leases.get(&worker).is_some_and(|lease| lease.expires > now)
    }

    /// Tells whether a worker has beaten within the last half of its lease. One that has not may have been cut off
    /// together with others, which could not beat either.
    fn may_claim(&self, worker: WorkerId, now: Instant) -> bool {
        let left = |lease: &Lease| lease.expires.saturating_duration_since(now);
        self.leases.get(&worker).is_some_and(|lease| left(lease) > lease.length / 2)
    }

    fn is_claimable(&self, saga: &Saga, request: &ClaimRequest, now: Instant) -> bool {
        let Instance { status, owner, definition, saga_type, id, .. } = &saga.instance;
        // A worker that claims is alive: it drives its sagas, except those that the request names.
        let free = owner.is_none_or(|owner| owner != request.worker && !self.is_live(owner, now));
        let own = *owner == Some(request.worker) && request.own.contains(id);
        let runnable = request.runnable.iter().any(|(name, print)| name == saga_type && print == definition);
        status.is_active() && (free || own) && runnable && saga.is_due(now)
    }

    fn journal(&self, id: SagaId) -> Option<Journal> {
        let saga = self.sagas.get(&id)?;
        Some(saga.journal())
    }
}

impl Saga {
    fn new(new: &NewSaga, now: Instant) -> Self {
        Self {
            instance: new.clone().into_instance(),
            steps: Vec::new(),
            waits: BTreeMap::new(),
            run_at: now,
            created_at: now,
        }
    }

    fn instance(&self) -> Instance {
        Instance { age: self.created_at.elapsed(), ..self.instance.clone() }
    }

    fn journal(&self) -> Journal {
        let mut steps = self.steps.clone();
        for step in &mut steps {
            let waited = self.waits.get(&step.order).map(Instant::elapsed).unwrap_or_default();
            step.retry_in = step.retry_in.map(|wait| wait.saturating_sub(waited));
        }
        Journal { instance: self.instance(), steps }
    }

    fn step_forward(&mut self, change: &Change) {
        self.write_steps(change);
        // A decision may be older than a mere step forward, which makes none stale.
        let last = self.steps.last().map_or(0, |row| row.order);
        self.instance.current_step = change.current_step.max(last);
    }

    fn write_steps(&mut self, change: &Change) {
        for step in &change.steps {
            self.waits.insert(step.order, Instant::now());
            match self.steps.binary_search_by_key(&step.order, |row| row.order) {
                Ok(at) => self.steps[at] = step.clone(),
                Err(at) => self.steps.insert(at, step.clone()),
            }
        }
    }

    fn change(&mut self, change: &Change) {
        let instance = &mut self.instance;
        instance.status = change.status;
        instance.resume_status = change.resume_status;
        instance.reason.clone_from(&change.reason);
        instance.unresolved = change.unresolved;
        instance.row_version += 1;
        instance.stalled_claims = 0;
        if !change.status.is_active() {
            instance.owner = None;
            instance.pause_requested = false;
        }
        self.step_forward(change);
    }

    fn apply(&mut self, record: &Record, now: Instant) -> Verdict {
        let instance = &self.instance;
        if instance.epoch == record.epoch && instance.write_no >= record.write_no {
            return Verdict::Applied(self.requests());
        }
        if instance.epoch != record.epoch || instance.status != record.from {
            return Verdict::Fenced;
        }
        if let Some(broken) = broken_shape(&record.change) {
            return Verdict::Refused(broken.into());
        }
        let Instance { reason, unresolved, stalled_claims, .. } = instance;
        if record.only_appends() && reason.is_none() && *unresolved == 0 && *stalled_claims == 0 {
            self.step_forward(&record.change);
        } else {
            self.change(&record.change);
        }
        self.instance.write_no = record.write_no;
        if let Some(after) = record.release {
            self.instance.owner = None;
            // A request of an operator ends the wait of the driver.
            let after = if self.is_asked_for(record.turning) { Duration::ZERO } else { after };
            self.run_at = later(now, after);
        }
        Verdict::Applied(self.requests())
    }

    /// No wait ends that far away: then a clock was wrong when it was written.
    fn is_due(&self, now: Instant) -> bool {
        self.run_at <= now || self.run_at > later(now, FARTHEST_BELIEVED)
    }

    /// A request that the next driver obeys. One to turn back means nothing after the turn.
    fn is_asked_for(&self, turning: bool) -> bool {
        let Instance { status, pause_requested, cancel_requested, .. } = &self.instance;
        *pause_requested || (!turning && cancel_requested.is_some() && *status == Status::InProgress)
    }

    fn requests(&self) -> Requests {
        Requests { cancel: self.instance.cancel_requested.clone(), pause: self.instance.pause_requested }
    }
}

/// The clock of this store ends somewhere.
fn later(now: Instant, after: Duration) -> Instant {
    now.checked_add(after.min(LONGEST)).unwrap_or(now)
}

/// Refuses what the CHECK constraints of the SQL stores refuse.
fn broken_shape(change: &Change) -> Option<&'static str> {
    let stopped = matches!(change.status, Status::Stuck | Status::Paused);
    if stopped != change.resume_status.is_some() {
        return Some("resume_status is set exactly for stuck and paused");
    }
    let proven = matches!(change.status, Status::Completed | Status::Compensated);
    (proven && change.unresolved > 0).then_some("a finished saga has no open effects")
}

#[async_trait]
impl SagaStore for MemoryStore {
    fn backend(&self) -> &'static str {
        "memory"
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        let now = Instant::now();
        let mut inner = self.lock();
        let held = inner.is_live(worker.id, now);
        let lease = Lease { expires: later(now, worker.lease), length: worker.lease };
        inner.leases.insert(worker.id, lease);
        Ok(if held { Heartbeat::Held } else { Heartbeat::Lapsed })
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.leases.remove(&worker);
        let mut released = 0;
        for saga in inner.sagas.values_mut().filter(|saga| saga.instance.owner == Some(worker)) {
            saga.instance.owner = None;
            saga.instance.stalled_claims = 0;
            released += 1;
        }
        Ok(released)
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for definition in definitions {
            inner.definitions.insert(definition.fingerprint.clone(), definition.clone());
        }
        Ok(())
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        let now = Instant::now();
        let mut inner = self.lock();
        let mut answers = Vec::with_capacity(sagas.len());
        for new in sagas {
            let business = (new.saga_type.clone(), new.business_id.clone());
            if let Some(id) = inner.business.get(&business).copied() {
                if id == new.id {
                    answers.push(Inserted::Created);
                    continue;
                }
                let input_hash = inner.sagas.get(&id).map(|saga| saga.instance.input_hash.clone());
                answers.push(Inserted::Exists { id, input_hash: input_hash.unwrap_or_default() });
                continue;
            }
            inner.business.insert(business, new.id);
            inner.sagas.insert(new.id, Saga::new(new, now));
            answers.push(Inserted::Created);
        }
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let now = Instant::now();
        let mut inner = self.lock();
        if !inner.may_claim(request.worker, now) {
            return Ok(Vec::new());
        }
        let mut suspects = request.suspects;
        let may_go = |saga: &&Saga| {
            let Instance { owner, stalled_claims, .. } = saga.instance;
            let suspect = owner != Some(request.worker) && stalled_claims >= request.suspect_at;
            let goes = !suspect || suspects > 0;
            suspects -= u32::from(suspect && goes);
            goes
        };
        let found: Vec<SagaId> = inner
            .sagas
            .values()
            .filter(|saga| inner.is_claimable(saga, request, now))
            .filter(may_go)
            .map(|saga| saga.instance.id)
            .take(request.limit as usize)
            .collect();
        let mut claimed = Vec::with_capacity(found.len());
        for id in found {
            let Some(saga) = inner.sagas.get_mut(&id) else { continue };
            let instance = &mut saga.instance;
            instance.epoch += 1;
            instance.write_no = 0;
            instance.row_version += 1;
            // A worker that takes its own saga back is alive: the saga did not kill it.
            let suspect = instance.owner != Some(request.worker);
            if suspect && instance.stalled_claims >= request.stalled_max {
                instance.resume_status = Some(instance.status);
                instance.status = Status::Paused;
                instance.owner = None;
                instance.reason =
                    Some(super::poison_reason(instance.reason.as_deref(), instance.stalled_claims));
                super::tell_of_poison(id, &instance.saga_type, &instance.business_id);
                continue;
            }
            instance.stalled_claims += u32::from(suspect);
            instance.owner = Some(request.worker);
            if let Ok(taken) = transition(instance.status, None, Trigger::Claimed) {
                instance.status = taken;
            }
            claimed.push(saga.journal());
        }
        Ok(claimed)
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        let inner = self.lock();
        let mine = |saga: &&Saga| saga.instance.owner == Some(worker) && saga.instance.status.is_active();
        Ok(inner.sagas.values().filter(mine).map(|saga| saga.instance.id).collect())
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        let inner = self.lock();
        let mine = |saga: &&Saga| saga.instance.owner == Some(worker) && saga.instance.status.is_active();
        let asked = inner.sagas.values().filter(mine).map(|saga| (saga.instance.id, saga.requests()));
        Ok(asked.filter(|(_, asked)| asked.pause || asked.cancel.is_some()).collect())
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        let now = Instant::now();
        let mut inner = self.lock();
        let verdict = |record: &Record| match inner.sagas.get_mut(&record.saga) {
            Some(saga) => saga.apply(record, now),
            None => Verdict::Fenced,
        };
        Ok(records.iter().map(verdict).collect())
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        let now = Instant::now();
        let mut guard = self.lock();
        let Inner { sagas, leases, audit, .. } = &mut *guard;
        let Some(saga) = sagas.get_mut(&intervention.saga) else { return Ok(Intervened::Stale) };
        let alive = |owner: WorkerId| leases.get(&owner).is_some_and(|lease| lease.expires > now);
        let driven = intervention.unless_driven && saga.instance.owner.is_some_and(alive);
        if driven || saga.instance.row_version != intervention.row_version {
            return Ok(Intervened::Stale);
        }
        if let Some(change) = &intervention.change {
            if let Some(broken) = broken_shape(change) {
                return Err(StoreError::not_applied("apply an operator's decision", broken));
            }
            saga.change(change);
            saga.instance.epoch += 1;
            saga.instance.write_no = 0;
            saga.instance.owner = None;
            // The request was about the state before the decision.
            saga.instance.pause_requested = false;
        } else {
            saga.instance.row_version += 1;
        }
        if intervention.request_cancel.is_some() {
            saga.instance.cancel_requested.clone_from(&intervention.request_cancel);
        }
        saga.instance.pause_requested |= intervention.request_pause;
        saga.run_at = now;
        audit.push(intervention.clone());
        Ok(Intervened::Applied)
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        let inner = self.lock();
        Ok(ids.iter().filter_map(|id| inner.journal(*id)).collect())
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        let inner = self.lock();
        let id = inner.business.get(&(saga_type.into(), business_id.into()));
        Ok(id.and_then(|id| inner.journal(*id)))
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        let inner = self.lock();
        let fits = |saga: &&Saga| {
            let Instance { id, saga_type, status, .. } = &saga.instance;
            filter.before.is_none_or(|before| *id < before)
                && filter.status.is_none_or(|wanted| *status == wanted)
                && filter.saga_type.as_ref().is_none_or(|wanted| saga_type == wanted)
        };
        let limit = if filter.limit == 0 { 100 } else { filter.limit };
        Ok(inner.sagas.values().rev().filter(fits).take(limit as usize).map(Saga::instance).collect())
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        let now = Instant::now();
        let inner = self.lock();
        let mut counted: BTreeMap<(String, Status), OpenCounts> = BTreeMap::new();
        for saga in inner.sagas.values().filter(|saga| !saga.instance.status.is_terminal()) {
            let Instance { saga_type, definition, status, owner, .. } = &saga.instance;
            let free = owner.is_none_or(|owner| !inner.is_live(owner, now));
            let known = runnable.iter().any(|(name, print)| name == saga_type && print == definition);
            let unrunnable = status.is_active() && free && saga.is_due(now) && !known;
            let census = counted.entry((saga_type.clone(), *status)).or_insert_with(|| OpenCounts {
                saga_type: saga_type.clone(),
                status: *status,
                sagas: 0,
                oldest: Duration::ZERO,
                unrunnable: 0,
            });
            census.sagas += 1;
            census.oldest = census.oldest.max(now.duration_since(saga.created_at));
            census.unrunnable += u64::from(unrunnable);
        }
        Ok(counted.into_values().collect())
    }
}
