//! The store whose concurrent calls share statements.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::changes::{Change, Changed, Kind};
use crate::store::sql::PostgresStore;
use crate::store::sql::group::Lane;
use crate::{
    Answer, Claim, ErrorKind, Fence, Holder, IdempotencyManager, RecordId, Recording, Renewed, Resolution,
    Snapshot, StoreError, Tombstone, Written,
};

/// Claims in one lane, writes by holders in the other; what an operator does goes its own way.
pub(super) struct Sharing {
    direct: PostgresStore,
    claims: Lane<Claim>,
    changes: Lane<Change>,
}

impl Sharing {
    pub(super) fn new(direct: PostgresStore) -> Self {
        Self { claims: Lane::new(direct.clone()), changes: Lane::new(direct.clone()), direct }
    }

    async fn write(&self, holder: &Holder, kind: Kind) -> Result<Written, StoreError> {
        match self.changes.call(Change { holder: *holder, kind }).await? {
            Changed::Written(written) => Ok(written),
            Changed::Renewed(_) => Err(mixed_up()),
        }
    }
}

#[async_trait]
impl IdempotencyManager for Sharing {
    async fn begin(&self, claim: &Claim) -> Result<Answer, StoreError> {
        self.claims.call(*claim).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        match self.changes.call(Change { holder: *holder, kind: Kind::Renew(lease) }).await? {
            Changed::Renewed(renewed) => Ok(renewed),
            Changed::Written(_) => Err(mixed_up()),
        }
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.write(holder, Kind::Mark).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.write(holder, Kind::Complete(recording.clone(), retention)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.write(holder, Kind::Tombstone(tombstone.clone(), retention)).await
    }

    async fn abandon(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.write(holder, Kind::Abandon).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        self.direct.resolve(record, fence, resolution, retention).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.direct.get(record).await
    }

    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.direct.purge(limit).await
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sharing")
    }
}

fn mixed_up() -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, "a call got the answer of another kind of call")
}
