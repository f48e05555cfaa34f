//! SQLite: BEGIN IMMEDIATE locks the migration; a failed statement has provably changed nothing.

use sqlx::SqlitePool;

use super::dialect::{Value, impl_dialect};
use super::schema;
use super::statements::SQLITE;
use crate::machine::Entry;
use crate::store::stored::StoredRow;
use crate::{ErrorKind, StoreError};

impl_dialect!(sqlx::Sqlite, false, SQLITE, SQLITE, migrate, |_| None);

/// One step per version. Never change one that was released.
const STEPS: &[&str] = &[
    include_str!("../../../sql/sqlite/0001_records.sql"),
    include_str!("../../../sql/sqlite/0002_fences.sql"),
];

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'idempotency_schema')";
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
        sqlx::Error::Database(inner) => {
            // The primary result code is the low byte: 5 is BUSY, 6 LOCKED, 13 FULL.
            let code = inner.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff;
            let kind = match code {
                5 | 6 => ErrorKind::Unavailable,
                13 => ErrorKind::Full,
                _ => ErrorKind::Rejected,
            };
            // 10 is an I/O error: the commit it broke may be on disk.
            if code == 10 { StoreError::unknown(kind, error) } else { StoreError::not_applied(kind, error) }
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            StoreError::not_applied(ErrorKind::Unavailable, error)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            StoreError::not_applied(ErrorKind::Corrupt, error)
        }
        _ => StoreError::unknown(ErrorKind::Unavailable, error),
    }
}
