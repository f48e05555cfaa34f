//! PostgreSQL: what a failure of the driver left behind, and the statements.

mod changes;
mod claims;
mod prepare;
mod sharing;

use std::sync::Arc;

use sqlx::PgPool;

use self::sharing::Sharing;
use super::PostgresStore;
use super::dialect::{Value, impl_dialect, of_the_driver};
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

/// Classifies an error of the driver, by the class of PostgreSQL's own error code.
fn classify(error: sqlx::Error) -> Failure {
    match error.as_database_error().map(|said| said.code().unwrap_or_default().into_owned()) {
        Some(code) => of_code(&code, error),
        None => of_the_driver(error),
    }
}

fn of_code(code: &str, error: sqlx::Error) -> Failure {
    match code {
        // Conflicts of serializable transactions, deadlocks, lock timeouts: rolled back, try again.
        "40001" | "40P01" | "55P03" => Failure::refused(ErrorKind::Unavailable, error),
        "57014" => Failure::refused(ErrorKind::Timeout, error),
        "53100" | "53200" => Failure::refused(ErrorKind::Full, error),
        "57P03" | "53300" => Failure::refused(ErrorKind::Unavailable, error),
        // The connection or the server went away under the statement, or a limit on the transaction ended it as it
        // was being committed.
        _ if code.starts_with("08") || code.starts_with("57P") || matches!(code, "40003" | "25P04") => {
            Failure::in_doubt(ErrorKind::Unavailable, error)
        }
        _ if REFUSALS.iter().any(|class| code.starts_with(class)) => {
            Failure::refused(ErrorKind::Rejected, error)
        }
        // Of a server in trouble (58, XX), or of something between us and it.
        _ => Failure::in_doubt(ErrorKind::Rejected, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Effect;

    // proves: I-5
    #[test]
    fn only_codes_that_are_known_to_undo_the_statement_prove_that_nothing_was_written() {
        let judged = |code: &str| {
            let error = StoreError::from(of_code(code, sqlx::Error::WorkerCrashed));
            (error.kind(), error.effect())
        };
        for (code, kind) in [
            ("40001", ErrorKind::Unavailable),
            ("40P01", ErrorKind::Unavailable),
            ("55P03", ErrorKind::Unavailable),
            ("57P03", ErrorKind::Unavailable),
            ("53300", ErrorKind::Unavailable),
            ("57014", ErrorKind::Timeout),
            ("53100", ErrorKind::Full),
            ("23505", ErrorKind::Rejected),
            ("25006", ErrorKind::Rejected),
            ("42501", ErrorKind::Rejected),
            ("P0001", ErrorKind::Rejected),
        ] {
            assert_eq!(judged(code), (kind, Effect::NotApplied), "{code}");
        }
        for code in ["08006", "08P01", "25P04", "40003", "57P01", "57P02", "57P05"] {
            assert_eq!(judged(code), (ErrorKind::Unavailable, Effect::Unknown), "{code}");
        }
        for code in ["", "58030", "F0000", "HV000", "XX000", "99999"] {
            assert_eq!(judged(code), (ErrorKind::Rejected, Effect::Unknown), "{code}");
        }
    }
}
