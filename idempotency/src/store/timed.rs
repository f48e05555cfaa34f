//! Any store, with a limit on how long a call may take.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot, SqlTables};
use crate::token::Holder;

/// A call that takes longer fails, with an unknown effect: the store may still apply it.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) inner: Arc<dyn IdempotencyManager>,
    pub(crate) limit: Duration,
}

impl Timed {
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut call = pin!(call);
        // An answer at the first poll, as memory gives it, needs no timer.
        if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            return answer;
        }
        match timeout(self.limit, call).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(StoreError::unknown(ErrorKind::Timeout, elapsed)),
        }
    }
}

#[async_trait]
impl IdempotencyManager for Timed {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        self.within(self.inner.claim(claim)).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        self.within(self.inner.renew(holder, lease)).await
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.within(self.inner.mark_effect(holder)).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.within(self.inner.complete(holder, recording, retention)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.within(self.inner.tombstone(holder, tombstone, retention)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.within(self.inner.release(holder)).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.within(self.inner.resolve(record, fence, resolution, retention)).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.within(self.inner.get(record)).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.inner.purge(limit).await
    }

    fn sql_tables(&self) -> Option<SqlTables> {
        self.inner.sql_tables()
    }
}
