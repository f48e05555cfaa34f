//! Any store, failing on demand: before a call reaches it, or after it was applied and before the reply arrived.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot, SqlTables};
use crate::token::Holder;

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Call {
    Claim,
    Renew,
    MarkEffect,
    Complete,
    Tombstone,
    Release,
    Resolve,
    Get,
    Purge,
}

/// The place where a call fails. Except where it is refused, or answered at last, the caller cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The call never arrives.
    Before,
    /// The call is applied; its reply is lost.
    After,
    /// The call never arrives, and no answer comes.
    Silence,
    /// The call is applied, and no answer ever comes.
    Unanswered,
    /// The call is applied, and answered this much later.
    Late(Duration),
    /// The call is applied, and sent again, as some drivers do after a broken connection. The second answer is given.
    Repeated,
    /// The call arrives, and is refused: provably not applied, the only fault that is.
    Refused,
}

/// Fails planned calls, and passes everything else on.
///
/// ```
/// # use std::sync::Arc;
/// use probity_idempotency::{MemoryStore, testing::{Call, FaultyStore, Side}};
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()));
/// store.fail(Call::Complete, Side::After); // the next completion is applied, and its reply is lost
/// ```
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn IdempotencyManager>,
    planned: Mutex<VecDeque<(Call, Side)>>,
}

impl FaultyStore {
    /// A store that does not fail yet.
    #[must_use]
    pub fn new(inner: Arc<dyn IdempotencyManager>) -> Self {
        Self { inner, planned: Mutex::default() }
    }

    /// Plans one more failure of `call`.
    pub fn fail(&self, call: Call, side: Side) {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).push_back((call, side));
    }

    fn side(&self, call: Call) -> Option<Side> {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let index = planned.iter().position(|(planned, _)| *planned == call)?;
        planned.remove(index).map(|(_, side)| side)
    }

    async fn passed<T, F>(&self, call: Call, apply: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let lost = || StoreError::unknown(ErrorKind::Unavailable, "a planned fault");
        match self.side(call) {
            None => apply().await,
            Some(Side::Before) => Err(lost()),
            Some(Side::After) => apply().await.and(Err(lost())),
            Some(Side::Silence) => std::future::pending().await,
            Some(Side::Unanswered) => {
                let _ = apply().await;
                std::future::pending().await
            }
            Some(Side::Late(by)) => {
                let answer = apply().await;
                tokio::time::sleep(by).await;
                answer
            }
            Some(Side::Repeated) => {
                apply().await?;
                apply().await
            }
            Some(Side::Refused) => Err(StoreError::not_applied(ErrorKind::Rejected, "a planned refusal")),
        }
    }
}

#[async_trait]
impl IdempotencyManager for FaultyStore {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        self.passed(Call::Claim, || self.inner.claim(claim)).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        self.passed(Call::Renew, || self.inner.renew(holder, lease)).await
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.passed(Call::MarkEffect, || self.inner.mark_effect(holder)).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.passed(Call::Complete, || self.inner.complete(holder, recording, retention)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.passed(Call::Tombstone, || self.inner.tombstone(holder, tombstone, retention)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.passed(Call::Release, || self.inner.release(holder)).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.passed(Call::Resolve, || self.inner.resolve(record, fence, resolution, retention)).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.passed(Call::Get, || self.inner.get(record)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.passed(Call::Purge, || self.inner.purge(limit)).await
    }

    fn sql_tables(&self) -> Option<SqlTables> {
        self.inner.sql_tables()
    }
}
