//! SQLite: the tables, which BEGIN IMMEDIATE locks while they are made, and what an error of the driver left behind.

use sqlx::{SqliteConnection, SqlitePool};

use super::sql::SqlStore;
use super::sql::dialect::{Value, impl_dialect, impl_rows, of_the_driver};
use super::sql::names::{Names, Set, safe};
use super::sql::schema;
use super::sql::statements::{SQLITE, sqlite_now};
use crate::core::machine::Entry;
use crate::error::{ErrorKind, Failure, StoreError};
use crate::store::rows::StoredRow;

/// Records in SQLite; see [`SqlStore`](crate::store::SqlStore).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use probity_idempotency::SqliteStore;
/// let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
/// let store = SqliteStore::new(pool).await?; // creates its table, once, under a lock
/// # Ok(()) }
/// ```
pub type SqliteStore = SqlStore<sqlx::Sqlite>;

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const FULL: u32 = 13;
/// Errors of a statement, each of which leaves nothing of it: ERROR, PERM, ABORT, READONLY, INTERRUPT, SCHEMA, TOOBIG,
/// CONSTRAINT, MISMATCH, MISUSE, AUTH, RANGE.
const ROLLED_BACK: [u32; 12] = [1, 3, 4, 8, 9, 17, 18, 19, 20, 21, 23, 25];

impl_rows!(sqlx::Sqlite);
impl_dialect!(sqlx::Sqlite, SqliteStore, false, set, ddl, prepare, std::convert::identity);

/// One step per version. Never change one that was released.
const STEPS: &[&str] =
    &[include_str!("../../sql/sqlite/0001_records.sql"), include_str!("../../sql/sqlite/0002_fences.sql")];

fn set(names: &Names) -> Set {
    let named = |template| names.statement(template, sqlite_now!());
    Set {
        callers: SQLITE.map(named),
        own: SQLITE.map(named),
        #[cfg(feature = "postgres")]
        shared: [named(""); 2],
        behind_pooler: false,
        database: <sqlx::Sqlite as sqlx::Database>::NAME,
    }
}

fn ddl(names: &Names) -> String {
    STEPS.iter().map(|step| names.step(step)).collect()
}

async fn prepare(pool: &SqlitePool, names: Names, may_create: bool) -> Result<Names, StoreError> {
    let mut connection = pool.acquire().await.map_err(classify)?;
    let found = version(&mut connection, &names).await?;
    if schema::missing_steps(found, STEPS)?.is_empty() {
        return Ok(names);
    }
    if !may_create {
        return Err(schema::absence(found, STEPS, "sql/sqlite"));
    }
    drop(connection);
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(classify)?;
    let found = version(&mut tx, &names).await?;
    for step in schema::missing_steps(found, STEPS)? {
        sqlx::raw_sql(safe(names.step(step))).execute(&mut *tx).await.map_err(classify)?;
    }
    tx.commit().await.map_err(classify)?;
    Ok(names)
}

/// The version of the tables, 0 if there are none.
async fn version(on: &mut SqliteConnection, names: &Names) -> Result<i64, StoreError> {
    let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1)";
    let has = async |on: &mut SqliteConnection, table: &str| {
        let name = format!("{}{table}", names.prefix);
        sqlx::query_scalar::<_, bool>(exists).bind(name).fetch_one(on).await.map_err(classify)
    };
    if !has(&mut *on, "schema").await? {
        return Ok(0);
    }
    let found = sqlx::query_scalar(safe(schema::read_version(names))).fetch_one(&mut *on).await;
    let found = found.map_err(classify)?;
    if found > 0 && !has(&mut *on, "records").await? {
        return Err(schema::loss(names));
    }
    Ok(found)
}

/// Classifies an error of the driver, by SQLite's primary result code.
fn classify(error: sqlx::Error) -> Failure {
    match error.as_database_error().map(|said| said.code().and_then(|code| code.parse().ok())) {
        Some(code) => of_code(code.unwrap_or_default(), error),
        None => of_the_driver(error),
    }
}

/// A file has no sessions.
const fn spends_the_session(_error: &StoreError) -> bool {
    false
}

fn of_code(code: u32, error: sqlx::Error) -> Failure {
    // The primary result code is the low byte.
    match code & 0xff {
        BUSY | LOCKED => Failure::refused(ErrorKind::Unavailable, error),
        FULL => Failure::refused(ErrorKind::Full, error),
        primary if ROLLED_BACK.contains(&primary) => Failure::refused(ErrorKind::Rejected, error),
        // An I/O error, say: the commit it broke may be on disk.
        _ => Failure::in_doubt(ErrorKind::Rejected, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Effect;

    // proves: I-5
    #[test]
    fn only_codes_that_are_known_to_undo_the_statement_prove_that_nothing_was_written() {
        let judged = |code| {
            let error = StoreError::from(of_code(code, sqlx::Error::WorkerCrashed));
            (error.kind(), error.effect())
        };
        // With extended codes: BUSY_SNAPSHOT, CONSTRAINT_PRIMARYKEY.
        for (code, kind) in [
            (5, ErrorKind::Unavailable),
            (517, ErrorKind::Unavailable),
            (6, ErrorKind::Unavailable),
            (13, ErrorKind::Full),
            (1, ErrorKind::Rejected),
            (8, ErrorKind::Rejected),
            (1555, ErrorKind::Rejected),
        ] {
            assert_eq!(judged(code), (kind, Effect::NotApplied), "{code}");
        }
        // Of no code, NOMEM, IOERR, IOERR_FSYNC, CORRUPT, PROTOCOL, NOTADB.
        for code in [0, 7, 10, 1034, 11, 15, 26] {
            assert_eq!(judged(code), (ErrorKind::Rejected, Effect::Unknown), "{code}");
        }
    }
}
