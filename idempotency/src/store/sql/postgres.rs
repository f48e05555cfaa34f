//! PostgreSQL: what a failure of the driver left behind, and the statements.

mod changes;
mod claims;
mod prepare;
mod sharing;

use std::sync::Arc;

use sqlx::PgPool;

use self::sharing::Sharing;
use super::PostgresStore;
use super::dialect::{Value, impl_dialect};
use super::names::{Names, Set};
use super::statements::{PATIENT_POSTGRES, POSTGRES, postgres_now};
use crate::error::Failure;
use crate::machine::Entry;
use crate::store::stored::StoredRow;
use crate::{ErrorKind, IdempotencyManager, StoreError};

/// Classes of errors with which PostgreSQL refuses a statement or its transaction, of which nothing is left then.
const REFUSALS: [&str; 19] = [
    "0A", "21", "22", "23", "25", "26", "28", "2B", "34", "38", "3D", "3F", "40", "42", "44", "53", "54",
    "55", "P0",
];

impl_dialect!(sqlx::Postgres, true, set, prepare::ddl, prepare::prepare, shared);

fn set(names: &Names) -> Set {
    let named = |template| names.statement(template, postgres_now!());
    Set {
        callers: POSTGRES.map(named),
        own: PATIENT_POSTGRES.map(named),
        shared: [named(claims::CLAIM), named(changes::CHANGE)],
        behind_pooler: names.behind_pooler,
        database: <sqlx::Postgres as sqlx::Database>::NAME,
    }
}

/// The store that [`PostgresStore`]'s calls go to.
fn shared(pool: &PgPool, set: &'static Set) -> Option<Arc<dyn IdempotencyManager>> {
    Some(Arc::new(Sharing::new(PostgresStore { pool: pool.clone(), set, sharing: None })))
}

/// What a failure of the driver says.
fn classify(error: sqlx::Error) -> Failure {
    match &error {
        sqlx::Error::Database(inner) => match inner.code().as_deref().unwrap_or_default() {
            // Conflicts of serializable transactions, deadlocks, lock timeouts: rolled back, try again.
            "40001" | "40P01" | "55P03" => Failure::refused(ErrorKind::Unavailable, error),
            "57014" => Failure::refused(ErrorKind::Timeout, error),
            "53100" | "53200" => Failure::refused(ErrorKind::Full, error),
            "57P03" | "53300" => Failure::refused(ErrorKind::Unavailable, error),
            code if code.starts_with("08")
                || code.starts_with("57P")
                || matches!(code, "40003" | "25P04") =>
            {
                Failure::in_doubt(ErrorKind::Unavailable, error)
            }
            code if REFUSALS.iter().any(|class| code.starts_with(class)) => {
                Failure::refused(ErrorKind::Rejected, error)
            }
            // Of a server in trouble (58, XX), or of something between us and it.
            _ => Failure::in_doubt(ErrorKind::Rejected, error),
        },
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
