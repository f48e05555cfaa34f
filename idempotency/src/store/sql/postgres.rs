//! PostgreSQL: an advisory lock guards the migration; after a broken connection nothing is known.

mod changes;
mod claims;
mod sharing;

use std::sync::Arc;

use sqlx::PgPool;

use self::sharing::Sharing;
use super::PostgresStore;
use super::dialect::{Value, impl_dialect};
use super::schema;
use super::statements::{PATIENT_POSTGRES, POSTGRES};
use crate::machine::Entry;
use crate::store::stored::StoredRow;
use crate::{ErrorKind, IdempotencyManager, StoreError};

/// Held while migrating; derived from the table's name, so other users of advisory locks do not meet it by chance.
const MIGRATION_LOCK: i64 = 0x6964_656d_706f_7401;

impl_dialect!(sqlx::Postgres, true, POSTGRES, PATIENT_POSTGRES, migrate, shared);

/// The store that [`PostgresStore`]'s calls go to.
fn shared(pool: &PgPool) -> Option<Arc<dyn IdempotencyManager>> {
    Some(Arc::new(Sharing::new(PostgresStore { pool: pool.clone(), sharing: None })))
}

/// One step per version. Never change one that was released.
const STEPS: &[&str] = &[
    include_str!("../../../sql/postgres/0001_records.sql"),
    include_str!("../../../sql/postgres/0002_fences.sql"),
];

async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let mut tx = pool.begin().await.map_err(classify)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(classify)?;
    let exists = "SELECT to_regclass('idempotency_schema') IS NOT NULL";
    let exists: bool = sqlx::query_scalar(exists).fetch_one(&mut *tx).await.map_err(classify)?;
    let found: i64 = if exists {
        sqlx::query_scalar(schema::READ_VERSION).fetch_one(&mut *tx).await.map_err(classify)?
    } else {
        0
    };
    for step in schema::missing(found, STEPS)? {
        sqlx::raw_sql(*step).execute(&mut *tx).await.map_err(classify)?;
    }
    tx.commit().await.map_err(classify)
}

/// What a failure of the driver left behind.
fn classify(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(inner) => match inner.code().as_deref().unwrap_or_default() {
            // Conflicts of serializable transactions, deadlocks, lock timeouts: rolled back, try again.
            "40001" | "40P01" | "55P03" => StoreError::not_applied(ErrorKind::Unavailable, error),
            "57014" => StoreError::not_applied(ErrorKind::Timeout, error),
            "53100" | "53200" => StoreError::not_applied(ErrorKind::Full, error),
            "57P03" | "53300" => StoreError::not_applied(ErrorKind::Unavailable, error),
            code if code.starts_with("08") || code.starts_with("57P") || code == "40003" => {
                StoreError::unknown(ErrorKind::Unavailable, error)
            }
            _ => StoreError::not_applied(ErrorKind::Rejected, error),
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            StoreError::not_applied(ErrorKind::Unavailable, error)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::not_applied(ErrorKind::Corrupt, error)
        }
        _ => StoreError::unknown(ErrorKind::Unavailable, error),
    }
}
