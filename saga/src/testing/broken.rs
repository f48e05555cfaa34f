//! Stores that are wrong in one way each. A contract that lets one pass proves nothing.

mod local;

use std::time::Duration;

use async_trait::async_trait;

use crate::error::StoreError;
use crate::record::{
    Beat, ClaimRequest, Definition, Inserted, Instance, Intervened, Intervention, Journal, ListFilter,
    NewSaga, Record, SagaId, Verdict, Worker, WorkerId,
};
use crate::store::{MemoryStore, SagaStore};
pub use local::{BrokenLocalStore, LocalFault};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes of any epoch pass.
    IgnoresTheEpoch,
    /// A repeated record is applied again.
    AppliesTwice,
    /// One refused record spoils the verdicts of its batch.
    SpoilsTheBatch,
    /// Step rows are not written.
    LosesSteps,
    /// Claims take sagas from live workers.
    RobsTheLiving,
    /// Claims hand out what the worker cannot run.
    IgnoresDefinitions,
    /// A saga released until later is due at once.
    ForgetsTheDelay,
    /// A saga without progress is handed out for ever.
    NeverParks,
    /// Claims hand out all that may have killed its workers at once.
    CrowdsSuspects,
    /// Claims take more than their limit.
    IgnoresTheLimit,
    /// Every beat claims that the lease was held.
    HidesLapses,
    /// A decision applies whatever the operator saw.
    AcceptsStaleDecisions,
    /// A decision for a saga that nobody drives applies to any.
    StopsTheDriven,
    /// Retiring releases nothing.
    KeepsRetiredSagas,
}

impl Fault {
    /// Each fault, with the clause that must catch it.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::IgnoresTheEpoch, "a_record_of_another_epoch_is_refused"),
        (Self::AppliesTwice, "a_repeated_record_is_answered_and_not_applied_again"),
        (Self::SpoilsTheBatch, "each_record_of_a_batch_gets_its_own_verdict"),
        (Self::LosesSteps, "a_result_is_stored_as_it_was_written"),
        (Self::RobsTheLiving, "a_live_workers_sagas_are_not_claimed"),
        (Self::IgnoresDefinitions, "a_definition_nobody_named_is_not_claimed"),
        (Self::ForgetsTheDelay, "a_saga_released_until_later_is_not_claimed_before"),
        (Self::NeverParks, "a_saga_that_makes_no_progress_is_parked_by_the_claim"),
        (Self::CrowdsSuspects, "what_may_have_killed_its_workers_is_handed_out_by_the_few"),
        (Self::IgnoresTheLimit, "a_claim_takes_no_more_than_its_limit"),
        (Self::HidesLapses, "a_beat_tells_whether_the_lease_lapsed"),
        (Self::AcceptsStaleDecisions, "a_stale_decision_is_refused"),
        (Self::StopsTheDriven, "a_decision_for_the_undriven_spares_a_driven_saga"),
        (Self::KeepsRetiredSagas, "a_retired_worker_owns_nothing"),
    ];
}

/// A memory store with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: Fault,
}

impl BrokenStore {
    /// An empty store with this fault.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { inner: MemoryStore::new(), fault }
    }

    async fn everything(&self) -> Result<Vec<Instance>, StoreError> {
        self.inner.list(&ListFilter { limit: u32::MAX, ..ListFilter::default() }).await
    }

    async fn spoil(&self, record: &Record) -> Result<Record, StoreError> {
        let mut record = record.clone();
        let stored = self.inner.load(&[record.saga]).await?.pop();
        match (self.fault, stored) {
            (Fault::IgnoresTheEpoch, Some(stored)) => record.epoch = stored.instance.epoch,
            (Fault::AppliesTwice, Some(stored)) => record.write_no = stored.instance.write_no + 1,
            (Fault::LosesSteps, _) => record.change.steps.clear(),
            (Fault::ForgetsTheDelay, _) => record.release = record.release.map(|_| Duration::ZERO),
            _ => {}
        }
        Ok(record)
    }
}

#[async_trait]
impl SagaStore for BrokenStore {
    fn backend(&self) -> &'static str {
        "broken"
    }

    async fn beat(&self, worker: &Worker) -> Result<Beat, StoreError> {
        let beat = self.inner.beat(worker).await?;
        Ok(if self.fault == Fault::HidesLapses { Beat::Held } else { beat })
    }

    async fn retire(&self, worker: WorkerId) -> Result<u64, StoreError> {
        if self.fault == Fault::KeepsRetiredSagas {
            return Ok(1);
        }
        self.inner.retire(worker).await
    }

    async fn define(&self, definitions: &[Definition]) -> Result<(), StoreError> {
        self.inner.define(definitions).await
    }

    async fn insert(&self, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
        self.inner.insert(sagas).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Journal>, StoreError> {
        let mut request = request.clone();
        match self.fault {
            Fault::NeverParks => request.stalled_max = u32::MAX,
            Fault::CrowdsSuspects => request.suspects = u32::MAX,
            Fault::IgnoresTheLimit => request.limit = u32::MAX,
            Fault::IgnoresDefinitions => {
                let all = self.everything().await?;
                request.runnable = all.into_iter().map(|saga| (saga.saga_type, saga.definition)).collect();
            }
            Fault::RobsTheLiving => {
                for owner in self.everything().await?.into_iter().filter_map(|saga| saga.owner) {
                    self.inner.retire(owner).await?;
                }
            }
            _ => {}
        }
        self.inner.claim(&request).await
    }

    async fn owned(&self, worker: WorkerId) -> Result<Vec<SagaId>, StoreError> {
        self.inner.owned(worker).await
    }

    async fn apply(&self, records: &[Record]) -> Result<Vec<Verdict>, StoreError> {
        let mut spoiled = Vec::with_capacity(records.len());
        for record in records {
            spoiled.push(self.spoil(record).await?);
        }
        let verdicts = self.inner.apply(&spoiled).await?;
        let bad = verdicts.iter().any(|verdict| !matches!(verdict, Verdict::Applied(_)));
        if self.fault == Fault::SpoilsTheBatch && bad {
            return Ok(vec![Verdict::Fenced; records.len()]);
        }
        Ok(verdicts)
    }

    async fn intervene(&self, intervention: &Intervention) -> Result<Intervened, StoreError> {
        let mut intervention = intervention.clone();
        if self.fault == Fault::AcceptsStaleDecisions
            && let Some(stored) = self.inner.load(&[intervention.saga]).await?.pop()
        {
            intervention.row_version = stored.instance.row_version;
        }
        intervention.unless_driven &= self.fault != Fault::StopsTheDriven;
        self.inner.intervene(&intervention).await
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
