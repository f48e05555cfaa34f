//! The contract that every store keeps. The memory store is its executable specification.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::core::claim::{Answer, Claim, Effects, Renewed, Resolution, State, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::machine::{Entry, Phase};
use crate::core::recording::{Recording, Tombstone};
use crate::error::StoreError;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::store::sql::names::Set;
use crate::token::Holder;

/// The keeper of records, and the only judge of who may run.
///
/// Every call is atomic on one record. Ownership is decided by the store's clock. Every write shows the caller's token
/// and may be repeated: the same call again gets an answer that means the same (I-7), so after an error whose effect
/// is unknown the caller simply asks again. No call reports success without having written what it says.
///
/// # Cancel safety
/// Dropping any of these futures leaves the call applied or not applied, never half of it.
#[async_trait]
pub trait IdempotencyManager: Debug + Send + Sync + 'static {
    /// Asks whether `claim` may run (I-1, I-3).
    ///
    /// # Cancel safety
    /// The claim may have been granted: repeat it, or release it with the same token.
    ///
    /// # Errors
    /// If the store cannot answer. Never run then (I-9).
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError>;

    /// Extends the holder's lease to `lease` from now, within the cap. Zero ends it at once.
    ///
    /// # Cancel safety
    /// The lease may have been extended.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError>;

    /// Notes durably that an external effect is about to start: from now on this record is never taken over.
    ///
    /// # Cancel safety
    /// The mark may have been set. Treat the record as marked.
    ///
    /// # Errors
    /// If the store cannot answer. The effect must not start then.
    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError>;

    /// Records the answer and keeps it for `retention`. Accepted after the lease, as long as no other attempt took over.
    ///
    /// # Cancel safety
    /// The recording may have been written; repeat the call.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError>;

    /// Records that it ran and cannot be replayed (I-10).
    ///
    /// # Cancel safety
    /// The tombstone may have been written; repeat the call.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError>;

    /// Gives the key back: the holder states that nothing happened. Refused after a mark and when finished.
    ///
    /// # Cancel safety
    /// The key may have been released; repeat the call.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn release(&self, holder: &Holder) -> Result<Written, StoreError>;

    /// Settles the indeterminate attempt that had `fence`; refused while a lease is live.
    ///
    /// # Cancel safety
    /// The resolution may have been written; repeat the call.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError>;

    /// Reads a record without touching it.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError>;

    /// Forgets at most `limit` records whose retention is over, and says how many. Never one that is in flight with
    /// a possible effect, or indeterminate.
    ///
    /// # Cancel safety
    /// Some may have been forgotten.
    ///
    /// # Errors
    /// If the store cannot answer.
    async fn purge(&self, limit: u32) -> Result<u64, StoreError>;

    /// Names the tables that [`Lease::complete_in`](crate::Lease) writes to. A store that wraps another one passes on
    /// what that one says; where none is named, `complete_in` writes to the tables of the usual names.
    fn sql_tables(&self) -> Option<SqlTables> {
        None
    }
}

/// The tables of an SQL store: which ones they are is its own business.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[derive(Debug, Clone, Copy)]
pub struct SqlTables(pub(crate) &'static Set);

/// The tables of an SQL store, of which there is none without the feature of a database.
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
#[derive(Debug, Clone, Copy)]
pub enum SqlTables {}

/// A record as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The state, by the store's clock.
    pub state: State,
    /// The fence of the last holder.
    pub fence: Fence,
    /// The last attempt.
    pub attempt: u32,
    /// The declared effects.
    pub effects: Effects,
    /// The mark was set: an effect was announced.
    pub marked: bool,
    /// The rest of the lease; zero when it is over. An in-flight record without lease that is opaque or marked
    /// is indeterminate.
    pub lease_left: Duration,
    /// The answer, when completed.
    pub recording: Option<Recording>,
}

impl Snapshot {
    /// Says whether it may have had its effect and no attempt is running it.
    #[must_use]
    pub fn is_indeterminate(&self) -> bool {
        self.state == State::InFlight
            && self.lease_left.is_zero()
            && (self.marked || self.effects == Effects::Opaque)
    }

    pub(crate) fn of(entry: &Entry, now: u64) -> Self {
        Self {
            state: entry.state(),
            fence: entry.fence,
            attempt: entry.attempt,
            effects: entry.effects,
            marked: entry.marked,
            lease_left: Duration::from_micros(entry.lease_until.saturating_sub(now)),
            recording: match &entry.phase {
                Phase::Completed(recording) => Some(recording.clone()),
                _ => None,
            },
        }
    }
}
