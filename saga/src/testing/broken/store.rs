//! A memory store with one fault.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Fault;
use crate::error::StoreError;
use crate::policy::FARTHEST;
use crate::record::{
    ClaimRequest, Definition, Heartbeat, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, OpenCounts, Record, Requests, SagaId, Settled, Verdict, Worker, WorkerId,
};
use crate::status::Status;
use crate::store::{MemoryStore, SagaStore, StartStatement};

/// A memory store with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: Fault,
    memory: Mutex<Memory>,
}

/// The memory of some faults.
#[derive(Debug, Default)]
struct Memory {
    workers: Vec<Worker>,
    handed_out: Vec<Journal>,
    claims: BTreeMap<SagaId, u32>,
    decided: BTreeMap<SagaId, u32>,
    requests: BTreeMap<SagaId, Requests>,
}

impl BrokenStore {
    /// An empty store with this fault.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { inner: MemoryStore::new(), fault, memory: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn everything(&self) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(&ListFilter { limit: u32::MAX, ..ListFilter::default() }).await
    }

    async fn spoiled(&self, record: &Record) -> Result<Record, StoreError> {
        let mut record = record.clone();
        let Some(stored) = self.inner.load(&[record.saga]).await?.pop() else { return Ok(record) };
        let Instance { epoch, status, write_no, .. } = stored.instance;
        match self.fault {
            Fault::IgnoresTheEpoch => record.epoch = epoch,
            Fault::LetsZombiesWrite if record.epoch < epoch => record.epoch = epoch,
            Fault::LetsZombiesStep if record.only_appends() => record.epoch = epoch,
            Fault::IgnoresTheStatus => record.from = status,
            Fault::DecidesWithoutFencing if self.memory().decided.contains_key(&record.saga) => {
                (record.epoch, record.from) = (epoch, status);
            }
            Fault::AppliesTwice => record.write_no = write_no + 1,
            Fault::LosesSteps => record.change.steps.clear(),
            Fault::RaisesTheVersion => record.rewrite = true,
            Fault::KeepsTheVersion => record.rewrite = false,
            Fault::ForgetsTheDelay => record.release = record.release.map(|_| Duration::ZERO),
            Fault::AcceptsAnyWait => record.release = record.release.map(|wait| wait.min(FARTHEST)),
            Fault::CutsTheLongestWait => {
                record.release =
                    record.release.map(|wait| if wait > FARTHEST { Duration::ZERO } else { wait });
            }
            Fault::EndsWithOpenEffects => record.change.unresolved = 0,
            Fault::StopsAnywhere => {
                let stops = matches!(record.change.status, Status::Stuck | Status::Paused);
                record.change.resume_status = stops.then_some(record.from);
            }
            _ => {}
        }
        Ok(record)
    }

    async fn spoiled_claim(&self, request: &ClaimRequest) -> Result<ClaimRequest, StoreError> {
        let mut request = request.clone();
        match self.fault {
            Fault::NeverParks => request.stalled_max = u32::MAX,
            Fault::HandsOutAllSuspects => request.suspects = u32::MAX,
            Fault::IgnoresTheLimit => request.limit = u32::MAX,
            Fault::ReclaimsTheDriven => request.own = self.inner.owned(request.worker).await?,
            Fault::ClaimsWithoutHeartbeat => {
                let alive = Worker { id: request.worker, lease: FARTHEST, pid: 1 };
                let _held = self.inner.heartbeat(&alive).await?;
            }
            Fault::ClaimsItsOwnSagas => {
                let beat =
                    self.memory().workers.iter().rev().find(|worker| worker.id == request.worker).cloned();
                if beat.is_some_and(|worker| worker.lease.is_zero()) {
                    request.own = self.inner.owned(request.worker).await?;
                    let alive = Worker { id: request.worker, lease: FARTHEST, pid: 1 };
                    let _held = self.inner.heartbeat(&alive).await?;
                }
            }
            Fault::IgnoresDefinitions => {
                let all = self.everything().await?;
                request.runnable = all.into_iter().map(|saga| (saga.saga_type, saga.definition)).collect();
            }
            Fault::ClaimsFromLiveWorkers => {
                for owner in self.everything().await?.into_iter().filter_map(|saga| saga.owner) {
                    self.inner.retire(owner).await?;
                }
            }
            Fault::ParksSurvivors => {
                let dead = Worker { id: request.worker, lease: Duration::ZERO, pid: 1 };
                let _held = self.inner.heartbeat(&dead).await?;
                request.worker = WorkerId::generate();
            }
            _ => {}
        }
        Ok(request)
    }
}

#[async_trait]
impl SagaStore for BrokenStore {
    fn backend(&self) -> &'static str {
        "broken"
    }

    async fn heartbeat(&self, worker: &Worker) -> Result<Heartbeat, StoreError> {
        let beat = self.inner.heartbeat(worker).await?;
        self.memory().workers.push(worker.clone());
        let known = self.memory().workers.clone();
        for other in known.iter().filter(|_| self.fault == Fault::RenewsEveryLease) {
            let _held = self.inner.heartbeat(&Worker { lease: worker.lease, ..other.clone() }).await?;
        }
        Ok(if self.fault == Fault::HidesLapses { Heartbeat::Held } else { beat })
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        if self.fault == Fault::KeepsRetiredSagas {
            return Ok(1);
        }
        let retired = self.inner.retire(worker).await;
        let known = self.memory().workers.clone();
        for other in known {
            if self.fault == Fault::RetiresAllSagas {
                self.inner.retire(other.id).await?;
            } else if self.fault == Fault::KeepsRetiredWorkers {
                let _held = self.inner.heartbeat(&other).await?;
            }
        }
        retired
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        let mut sagas = sagas.to_vec();
        for saga in &mut sagas {
            match self.fault {
                Fault::StartsTwice => saga.business_id = format!("{} {}", saga.business_id, saga.id),
                Fault::StartsWithoutOwner => saga.owner = WorkerId::generate(),
                _ => {}
            }
        }
        let mut answers = self.inner.insert(&sagas).await?;
        for (answer, new) in answers.iter_mut().zip(&sagas) {
            if let (Fault::TakesAnyInput, Inserted::Exists { input_hash, .. }) = (self.fault, answer) {
                input_hash.clone_from(&new.input_hash);
            }
        }
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let mut claimed = self.inner.claim(&self.spoiled_claim(request).await?).await?;
        if self.fault == Fault::HandsOutTheFinished {
            let ended = self.everything().await?.into_iter().filter(|saga| saga.status.is_terminal());
            let ended: Vec<SagaId> = ended.map(|saga| saga.id).collect();
            claimed.extend(self.inner.load(&ended).await?);
        }
        let mut memory = self.memory();
        if self.fault == Fault::HandsOutTwice {
            memory.handed_out.extend(claimed.clone());
            claimed.clone_from(&memory.handed_out);
        }
        for journal in &claimed {
            *memory.claims.entry(journal.instance.id).or_default() += 1;
        }
        if self.fault == Fault::NeverForgives {
            claimed.retain(|journal| {
                memory.claims.get(&journal.instance.id).is_none_or(|n| *n <= request.stalled_max)
            });
        }
        Ok(claimed)
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.inner.owned(worker).await
    }

    async fn asked(&self, worker: WorkerId) -> Result<Vec<(SagaId, Requests)>, StoreError> {
        if self.fault == Fault::HidesRequests {
            return Ok(Vec::new());
        }
        self.inner.asked(worker).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        let mut spoiled = Vec::with_capacity(records.len());
        for record in records {
            spoiled.push(self.spoiled(record).await?);
        }
        let mut verdicts = self.inner.apply(&spoiled).await?;
        let bad = verdicts.iter().any(|verdict| !matches!(verdict, Verdict::Applied(_)));
        if self.fault == Fault::SpoilsTheBatch && bad {
            return Ok(vec![Verdict::Fenced; records.len()]);
        }
        for (verdict, record) in verdicts.iter_mut().zip(records) {
            if let (Verdict::Applied(told), Some(kept)) = (verdict, self.memory().requests.get(&record.saga))
            {
                told.clone_from(kept);
            }
        }
        Ok(verdicts)
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        let mut decision = intervention.clone();
        let stored = self.inner.load(&[decision.saga]).await?.pop();
        match (self.fault, stored) {
            (Fault::AcceptsStaleDecisions, Some(stored)) => {
                decision.row_version = stored.instance.row_version;
            }
            (Fault::KeepsAnEarlierPause, Some(stored)) => {
                decision.request_pause |= stored.instance.pause_requested;
            }
            (Fault::StopsTheDriven, _) => decision.unless_driven = false,
            (Fault::DecidesWithoutTheRequest, _) if decision.change.is_some() => {
                decision.request_cancel = None
            }
            (Fault::LosesPauses, _) => decision.request_pause = false,
            (Fault::LosesCancels, _) => decision.request_cancel = None,
            (Fault::LetsRequestsWait, _) => {
                let cancel = decision.request_cancel.take();
                let pause = std::mem::take(&mut decision.request_pause);
                self.memory().requests.insert(decision.saga, Requests { cancel, pause });
            }
            _ => {}
        }
        if let (Fault::DecidesOverOpenEffects, Some(change)) = (self.fault, &mut decision.change) {
            change.unresolved = 0;
        }
        if let Some(change) = &decision.change {
            self.memory().decided.insert(decision.saga, change.current_step);
        }
        self.inner.intervene(&decision).await
    }

    async fn load(&self, ids: &[SagaId]) -> Result<Vec<Journal>, StoreError> {
        let mut loaded = self.inner.load(ids).await?;
        for Journal { steps, .. } in loaded.iter_mut().filter(|_| self.fault == Fault::StopsTheClock) {
            steps.iter_mut().for_each(|step| step.retry_in = step.retry_in.map(|_| FARTHEST));
        }
        for Journal { instance, .. } in loaded.iter_mut().filter(|_| self.fault == Fault::MovesBack) {
            instance.current_step =
                self.memory().decided.get(&instance.id).copied().unwrap_or(instance.current_step);
        }
        Ok(loaded)
    }

    async fn find(&self, saga_type: &str, business_id: &str) -> Result<Option<Journal>, StoreError> {
        self.inner.find(saga_type, business_id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<Vec<Instance>, StoreError> {
        if self.fault != Fault::ListsTheOldestFirst {
            return self.inner.list(filter).await;
        }
        let mut all = self.inner.list(&ListFilter { limit: u32::MAX, ..filter.clone() }).await?;
        all.reverse();
        all.truncate(filter.limit as usize);
        Ok(all)
    }

    async fn settled(&self, ids: &[SagaId]) -> Result<Vec<Settled>, StoreError> {
        let mut rested = self.inner.settled(ids).await?;
        if self.fault == Fault::ReportsRunningSagas {
            let goes_on = self.inner.load(ids).await?.into_iter().map(|journal| journal.instance);
            let goes_on = goes_on.filter(|instance| instance.status.is_active());
            rested.extend(goes_on.map(|instance| Settled {
                saga: instance.id,
                status: instance.status,
                step: instance.current_step,
                reason: instance.reason,
            }));
        }
        Ok(rested)
    }

    fn start_statement(&self) -> Option<StartStatement> {
        self.inner.start_statement()
    }

    async fn open_counts(&self, runnable: &[(String, String)]) -> Result<Vec<OpenCounts>, StoreError> {
        let mut counted = self.inner.open_counts(runnable).await?;
        for census in counted.iter_mut().filter(|_| self.fault == Fault::HidesTheUnrunnable) {
            census.unrunnable = 0;
        }
        Ok(counted)
    }
}
