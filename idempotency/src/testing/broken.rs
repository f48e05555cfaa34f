//! Stores that are wrong in one way each. A suite that was never seen to fail proves nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::core::claim::{Answer, Claim, Effects, Grant, Renewed, Resolution, State, Written};
use crate::core::fence::Fence;
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::{HashKey, RecordId};
use crate::core::recording::{Recording, Tombstone};
use crate::error::StoreError;
use crate::store::manager::{IdempotencyManager, Snapshot};
use crate::store::memory::MemoryStore;
use crate::token::{Holder, OwnerToken};

/// One way to be wrong, each seen in the wild, and the clause that must catch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Looks first and claims afterwards: two callers both find nothing.
    ChecksThenActs,
    /// Does not compare what the key is used for.
    ForgetsTheFingerprint,
    /// Cannot tell the repetition of a claim from a duplicate.
    DeadlocksOnItself,
    /// Takes a claim over while its holder is alive.
    StealsLiveLeases,
    /// Starts fences again with every claim.
    ResetsFences,
    /// Gives the next holder of a forgotten record the fence of the last one, as a clock does that stands still.
    RepeatsFences,
    /// Lets any caller complete.
    IgnoresTheTokenOnComplete,
    /// Lets any caller release.
    IgnoresTheTokenOnRelease,
    /// Overwrites a recording when completed again.
    OverwritesRecordings,
    /// Refuses a completion after the lease although no attempt took over.
    ForgetsLateSuccess,
    /// Creates a record when it completes one that does not exist.
    CreatesOnComplete,
    /// Cuts bodies at 64 KiB.
    CutsBodies,
    /// Keeps headers in a map.
    FoldsHeaders,
    /// Releases a key after its effect was announced.
    ReleasesAfterTheMark,
    /// Deletes a completed record when released.
    ReleasesCompleted,
    /// Runs an indeterminate record again.
    RunsIndeterminateAgain,
    /// Runs again what left a tombstone.
    RunsTombstonedAgain,
    /// Replays after the retention.
    ReplaysForEver,
    /// Purges what is indeterminate.
    PurgesIndeterminate,
    /// Renews without end.
    IgnoresTheCap,
    /// Settles an attempt that is still running.
    ResolvesLiveAttempts,
}

impl Fault {
    /// Every fault, with the clause that names it.
    #[must_use]
    pub const fn all() -> &'static [(Self, &'static str)] {
        use Fault::*;
        &[
            (ChecksThenActs, "of_64_callers_at_once_one_acquires"),
            (ForgetsTheFingerprint, "another_fingerprint_is_refused_in_every_state"),
            (DeadlocksOnItself, "the_same_token_again_gets_the_same_grant"),
            (StealsLiveLeases, "a_live_lease_is_not_taken_over"),
            (ResetsFences, "fences_rise_across_takeovers_releases_and_expiry"),
            (RepeatsFences, "no_fence_is_given_twice_under_any_clock"),
            (IgnoresTheTokenOnComplete, "a_lost_token_cannot_complete"),
            (IgnoresTheTokenOnRelease, "a_lost_token_cannot_release"),
            (OverwritesRecordings, "completing_again_changes_nothing"),
            (ForgetsLateSuccess, "a_late_completion_counts_without_a_takeover"),
            (CreatesOnComplete, "completing_an_unclaimed_key_creates_nothing"),
            (CutsBodies, "bodies_of_any_size_are_replayed_whole"),
            (FoldsHeaders, "headers_are_replayed_in_order_with_repeats_and_raw_bytes"),
            (ReleasesAfterTheMark, "a_marked_record_cannot_be_released"),
            (ReleasesCompleted, "a_completed_record_cannot_be_released"),
            (RunsIndeterminateAgain, "a_lapsed_opaque_attempt_is_indeterminate"),
            (RunsTombstonedAgain, "a_tombstone_forbids_to_run_again"),
            (ReplaysForEver, "a_finished_record_ends_with_its_retention"),
            (PurgesIndeterminate, "purging_forgets_no_running_and_no_indeterminate_record"),
            (IgnoresTheCap, "the_cap_holds_under_endless_renewal"),
            (ResolvesLiveAttempts, "a_live_attempt_cannot_be_resolved"),
        ]
    }
}

/// A memory store with one fault.
#[derive(Debug)]
pub struct BrokenStore {
    inner: MemoryStore,
    fault: Fault,
    state: Mutex<Memory>,
}

/// The memory that a fault needs to be wrong.
#[derive(Debug, Default)]
struct Memory {
    last_claim: HashMap<RecordId, Claim>,
    seen: HashSet<RecordId>,
    forgotten: HashMap<RecordId, u8>,
    fences: HashMap<RecordId, Fence>,
}

impl BrokenStore {
    /// A store with this fault.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { inner: MemoryStore::new(), fault, state: Mutex::default() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the place of the record: "deleting" one moves it aside.
    fn place(&self, record: RecordId) -> RecordId {
        let mut bytes = *record.as_bytes();
        bytes[31] ^= self.memory().forgotten.get(&record).copied().unwrap_or_default();
        RecordId::from_bytes(bytes)
    }

    fn forget(&self, record: RecordId) {
        *self.memory().forgotten.entry(record).or_default() += 1;
    }

    fn last_holder(&self, holder: &Holder) -> Holder {
        self.memory().last_claim.get(&holder.record).map_or(*holder, Claim::holder)
    }

    async fn claim_check_then_act(&self, claim: &Claim) -> Result<Answer, StoreError> {
        let seen = self.memory().seen.contains(&claim.record);
        tokio::task::yield_now().await;
        self.memory().seen.insert(claim.record);
        let answer = self.inner.claim(claim).await?;
        match answer {
            Answer::InFlight { .. } if !seen => {
                Ok(Answer::Acquired(Grant { fence: Fence(1), attempt: 1, lease: claim.terms.lease }))
            }
            answer => Ok(answer),
        }
    }

    async fn claim_again(&self, claim: &Claim) -> Result<Answer, StoreError> {
        match self.inner.claim(claim).await? {
            Answer::InFlight { .. } if self.fault == Fault::StealsLiveLeases => {
                let holder = self.last_holder(&claim.holder());
                let _ = self.inner.release(&holder).await?;
                self.inner.claim(claim).await
            }
            Answer::Indeterminate(lost) if self.fault == Fault::RunsIndeterminateAgain => {
                let _ =
                    self.inner.resolve(claim.record, lost.fence, &Resolution::Absent, Duration::ZERO).await?;
                self.inner.claim(claim).await
            }
            Answer::NotReplayable(_) if self.fault == Fault::RunsTombstonedAgain => {
                Ok(Answer::Acquired(Grant { fence: Fence(u64::MAX), attempt: 2, lease: claim.terms.lease }))
            }
            Answer::Acquired(grant) if self.fault == Fault::ResetsFences => {
                Ok(Answer::Acquired(Grant { fence: Fence(1), ..grant }))
            }
            Answer::Acquired(grant) if self.fault == Fault::RepeatsFences && grant.attempt == 1 => {
                let fence = *self.memory().fences.entry(claim.record).or_insert(grant.fence);
                Ok(Answer::Acquired(Grant { fence, ..grant }))
            }
            answer => Ok(answer),
        }
    }
}

#[async_trait]
impl IdempotencyManager for BrokenStore {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        let mut claim = Claim { record: self.place(claim.record), ..*claim };
        match self.fault {
            Fault::ForgetsTheFingerprint => claim.fingerprint = Fingerprint::of(&HashKey::default(), &[]),
            Fault::DeadlocksOnItself => claim.token = OwnerToken::generate()?,
            Fault::ChecksThenActs => return self.claim_check_then_act(&claim).await,
            _ => {}
        }
        let answer = self.claim_again(&claim).await?;
        if matches!(answer, Answer::Acquired(_)) {
            self.memory().last_claim.insert(claim.record, claim);
        }
        Ok(answer)
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        match self.inner.renew(holder, lease).await? {
            Renewed::Held(_) if self.fault == Fault::IgnoresTheCap => Ok(Renewed::Held(lease)),
            renewed => Ok(renewed),
        }
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.inner.mark_effect(holder).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let mut recording = recording.clone();
        let mut retention = retention;
        let mut holder = Holder { record: self.place(holder.record), ..*holder };
        match self.fault {
            Fault::IgnoresTheTokenOnComplete => holder = self.last_holder(&holder),
            Fault::CutsBodies => {
                let kept = recording.bytes().slice(..recording.bytes().len().min(65_536));
                recording = recording.body(kept);
            }
            Fault::FoldsHeaders => {
                let folded: std::collections::BTreeMap<Bytes, Bytes> =
                    recording.headers().iter().cloned().collect();
                let headers = folded.into_iter().collect();
                recording = Recording::from_parts(recording.status(), headers, recording.bytes().clone());
            }
            Fault::ReplaysForEver => retention = retention.max(Duration::from_secs(60)),
            Fault::ForgetsLateSuccess => {
                let late = self.inner.get(holder.record).await?.filter(|found| found.lease_left.is_zero());
                if let Some(late) = late {
                    return Ok(Written::LostTo(late.fence));
                }
            }
            _ => {}
        }
        match self.inner.complete(&holder, &recording, retention).await? {
            Written::Missing if self.fault == Fault::CreatesOnComplete => {
                let claim = Claim {
                    record: holder.record,
                    token: holder.token,
                    fingerprint: Fingerprint::of(&HashKey::default(), &[]),
                    effects: Effects::Local,
                    terms: crate::core::claim::Terms::default(),
                };
                let _ = self.inner.claim(&claim).await?;
                self.inner.complete(&holder, &recording, retention).await
            }
            Written::AlreadyApplied if self.fault == Fault::OverwritesRecordings => {
                let claim = self.memory().last_claim.get(&holder.record).copied();
                self.forget(holder.record);
                if let Some(claim) = claim {
                    let moved = Claim { record: self.place(claim.record), ..claim };
                    let _ = self.inner.claim(&moved).await?;
                    let _ = self.inner.complete(&moved.holder(), &recording, retention).await?;
                }
                Ok(Written::AlreadyApplied)
            }
            written => Ok(written),
        }
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.inner.tombstone(holder, tombstone, retention).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        let holder = match self.fault {
            Fault::IgnoresTheTokenOnRelease => self.last_holder(holder),
            _ => Holder { record: self.place(holder.record), ..*holder },
        };
        match self.inner.release(&holder).await? {
            Written::Refused(State::InFlight) if self.fault == Fault::ReleasesAfterTheMark => {
                self.forget(holder.record);
                Ok(Written::Applied)
            }
            Written::Refused(State::Completed) if self.fault == Fault::ReleasesCompleted => {
                self.forget(holder.record);
                Ok(Written::Refused(State::Completed))
            }
            written => Ok(written),
        }
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        if self.fault == Fault::ResolvesLiveAttempts {
            let claim = self.memory().last_claim.get(&record).copied();
            if let Some(claim) = claim {
                let _ = self.inner.renew(&claim.holder(), Duration::ZERO).await?;
            }
        }
        self.inner.resolve(record, fence, resolution, retention).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.inner.get(self.place(record)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        if self.fault == Fault::PurgesIndeterminate {
            let claims: Vec<RecordId> = self.memory().last_claim.keys().copied().collect();
            for record in claims {
                if self.inner.get(record).await?.is_some_and(|found| found.is_indeterminate()) {
                    self.forget(record);
                }
            }
        }
        self.inner.purge(limit).await
    }
}
