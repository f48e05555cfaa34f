//! SQLite: BEGIN IMMEDIATE locks the migration; a failed statement has provably changed nothing.

use sqlx::SqlitePool;

use super::dialect::{Value, impl_dialect};
use super::schema;
use super::statements::SQLITE;
use crate::machine::Entry;
use crate::store::stored::StoredRow;
use crate::{ErrorKind, StoreError};

impl_dialect!(sqlx::Sqlite, false, SQLITE, SQLITE, migrate, |_| None);

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
    sqlx::query(schema::VERSION_TABLE).execute(&mut *tx).await.map_err(classify)?;
    let found: i64 = sqlx::query_scalar(schema::READ_VERSION).fetch_one(&mut *tx).await.map_err(classify)?;
    schema::check(found)?;
    if found < 1 {
        sqlx::raw_sql(include_str!("sqlite.sql")).execute(&mut *tx).await.map_err(classify)?;
        sqlx::query(schema::WRITE_VERSION).bind(1i64).execute(&mut *tx).await.map_err(classify)?;
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
