//! SQLite: BEGIN IMMEDIATE locks the migration; a statement that was refused has provably changed nothing.

use sqlx::SqlitePool;

use super::dialect::{Value, impl_dialect};
use super::schema;
use super::statements::SQLITE;
use crate::error::Failure;
use crate::machine::Entry;
use crate::store::stored::StoredRow;
use crate::{ErrorKind, StoreError};

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const FULL: u32 = 13;
/// Errors of a statement, each of which leaves nothing of it: ERROR, PERM, ABORT, READONLY, INTERRUPT, SCHEMA, TOOBIG,
/// CONSTRAINT, MISMATCH, MISUSE, AUTH, RANGE.
const ROLLED_BACK: [u32; 12] = [1, 3, 4, 8, 9, 17, 18, 19, 20, 21, 23, 25];

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
    Ok(tx.commit().await.map_err(classify)?)
}

/// What a failure of the driver says.
fn classify(error: sqlx::Error) -> Failure {
    match &error {
        sqlx::Error::Database(inner) => {
            // The primary result code is the low byte.
            match inner.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default() & 0xff {
                BUSY | LOCKED => Failure::refused(ErrorKind::Unavailable, error),
                FULL => Failure::refused(ErrorKind::Full, error),
                code if ROLLED_BACK.contains(&code) => Failure::refused(ErrorKind::Rejected, error),
                // An I/O error, say: the commit it broke may be on disk.
                _ => Failure::in_doubt(ErrorKind::Rejected, error),
            }
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            Failure::refused(ErrorKind::Unavailable, error)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            Failure::in_doubt(ErrorKind::Corrupt, error)
        }
        _ => Failure::in_doubt(ErrorKind::Unavailable, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effect;

    // proves: I-5
    #[test]
    fn a_row_that_cannot_be_decoded_may_be_that_of_a_write() {
        for error in [sqlx::Error::ColumnNotFound("fence".into()), sqlx::Error::Decode("no number".into())] {
            let error = StoreError::from(classify(error));
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::Unknown));
            assert_eq!(error.nothing_written().effect(), Effect::NotApplied);
        }
        assert_eq!(StoreError::from(classify(sqlx::Error::PoolTimedOut)).effect(), Effect::NotApplied);
    }
}
