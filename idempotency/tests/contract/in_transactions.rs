//! Claims in the caller's transactions keep the contract too: `claim_in` does in one statement what `claim` does in
//! several.
#![cfg(all(feature = "testing", feature = "sqlite", feature = "postgres"))]
#![cfg_attr(
    all(feature = "testing", feature = "sqlite", feature = "postgres"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use probity_idempotency::store::{
    Answer, Claim, Dialect, Fence, Holder, RecordId, Renewed, Resolution, Snapshot, SqlStore, Written,
};
use probity_idempotency::testing::Subject;
use probity_idempotency::*;
use sqlx::Pool;

/// A store that claims in a transaction of its own.
#[derive(Debug)]
struct InTransactions<DB: Dialect> {
    pool: Pool<DB>,
    begin: &'static str,
    store: SqlStore<DB>,
}

fn unavailable(error: sqlx::Error) -> StoreError {
    StoreError::unknown(ErrorKind::Unavailable, error)
}

macro_rules! impl_manager {
    ($database:ty) => {
        #[async_trait]
        impl IdempotencyManager for InTransactions<$database> {
            async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
                let (pool, store, start, claim) = (self.pool.clone(), self.store.clone(), self.begin, *claim);
                // In a task of its own: a transaction of `sqlx` that is dropped halfway may stay open.
                let claiming = tokio::spawn(async move {
                    let mut tx = pool.begin_with(start).await.map_err(unavailable)?;
                    let answer = store.claim_in(&mut *tx, &claim).await?;
                    tx.commit().await.map_err(unavailable)?;
                    Ok(answer)
                });
                claiming.await.unwrap()
            }

            async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
                self.store.renew(holder, lease).await
            }

            async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
                self.store.mark_effect(holder).await
            }

            async fn complete(
                &self,
                holder: &Holder,
                recording: &Recording,
                retention: Duration,
            ) -> Result<Written, StoreError> {
                self.store.complete(holder, recording, retention).await
            }

            async fn tombstone(
                &self,
                holder: &Holder,
                tombstone: &Tombstone,
                retention: Duration,
            ) -> Result<Written, StoreError> {
                self.store.tombstone(holder, tombstone, retention).await
            }

            async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
                self.store.release(holder).await
            }

            async fn resolve(
                &self,
                record: RecordId,
                fence: Fence,
                resolution: &Resolution,
                retention: Duration,
            ) -> Result<Written, StoreError> {
                self.store.resolve(record, fence, resolution, retention).await
            }

            async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
                self.store.get(record).await
            }

            async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
                self.store.purge(limit).await
            }
        }
    };
}

impl_manager!(sqlx::Sqlite);
impl_manager!(sqlx::Postgres);

mod on_sqlite {
    use super::*;

    async fn subject() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.path().join("test.db"))
            .create_if_missing(true)
            .busy_timeout(Duration::from_secs(60))
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Normal);
        let pool =
            sqlx::sqlite::SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        let store = SqliteStore::new(pool.clone()).await.unwrap();
        Subject::new(Arc::new(InTransactions { pool, begin: "BEGIN IMMEDIATE", store })).keep(folder)
    }

    // proves: I-1
    // proves: I-3
    probity_idempotency::store_contract!(subject);
}

mod on_postgres {
    use super::*;

    async fn subject() -> Subject {
        let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(120))
            .connect(database.url())
            .await
            .unwrap();
        let store = PostgresStore::new(pool.clone()).await.unwrap();
        Subject::new(Arc::new(InTransactions { pool, begin: "BEGIN", store: store.direct() })).keep(database)
    }

    // proves: I-1
    // proves: I-3
    probity_idempotency::store_contract!(subject);
}
