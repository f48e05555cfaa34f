//! Looks whether PostgreSQL can keep records, and makes the tables if it must and may.
//!
//! Invariant: a role that may only read and write the tables can start a store when they are there. A session whose
//! settings would let an acknowledged record be lost is refused, wherever they were set: a pooler, the role, the server.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Row};
use tokio::time::timeout;

use super::classify::classify;
use crate::error::StoreError;
use crate::store::sql::names::{Names, quote, safe};
use crate::store::sql::schema;

/// Held while migrating; derived from the table's name, so other users of advisory locks do not meet it by chance.
const MIGRATION_LOCK: i64 = 0x6964_656d_706f_7401;

/// One step per version. Never change one that was released.
const STEPS: &[&str] = &[
    include_str!("../../../sql/postgres/0001_records.sql"),
    include_str!("../../../sql/postgres/0002_fences.sql"),
];

/// Asks where the tables are, whether this role may use them, and which settings let the session forget in a crash.
const LOOK: &str = "SELECT current_setting('synchronous_commit') AS synchronous_commit, \
    current_setting('fsync') AS fsync, \
    (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = to_regclass($1)) AS versions_in, \
    (SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.oid = to_regclass($2)) AS records_in, \
    has_table_privilege(to_regclass($1), 'SELECT') AND has_table_privilege(to_regclass($2), 'SELECT') \
    AND has_table_privilege(to_regclass($2), 'INSERT') AND has_table_privilege(to_regclass($2), 'UPDATE') AS may";

/// The time to wait for a second connection, which shows whether two connections are one session.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn ddl(names: &Names) -> String {
    let schema = names.schema.as_deref();
    let path = schema.map(|schema| format!("SET LOCAL search_path TO {};\n", quote(schema)));
    let steps: String = STEPS.iter().map(|step| names.step(step)).collect();
    format!("BEGIN;\n{}{steps}COMMIT;\n", path.unwrap_or_default())
}

pub(super) async fn prepare(pool: &PgPool, names: Names, may_create: bool) -> Result<Names, StoreError> {
    if !names.behind_pooler {
        refuse_shared_sessions(pool).await?;
    }
    // Each in a transaction, so that a pooler cannot change the session between two messages.
    let mut tx = pool.begin().await.map_err(classify)?;
    let found = look(&mut tx, &names).await?;
    tx.commit().await.map_err(classify)?;
    let found = if schema::missing_steps(found.version, STEPS)?.is_empty() {
        found
    } else if may_create {
        let mut tx = pool.begin().await.map_err(classify)?;
        migrate(&mut tx, &names).await?;
        let found = look(&mut tx, &names).await?;
        tx.commit().await.map_err(classify)?;
        found
    } else {
        return Err(schema::absence(found.version, STEPS, "sql/postgres"));
    };
    Ok(Names { schema: found.schema, ..names })
}

struct Found {
    version: i64,
    schema: Option<String>,
}

async fn look(on: &mut PgConnection, names: &Names) -> Result<Found, StoreError> {
    let (versions, records) = (names.table("schema"), names.table("records"));
    let look = sqlx::query(LOOK).persistent(false).bind(versions).bind(records);
    let row = look.fetch_one(&mut *on).await.map_err(classify)?;
    let text = |column| row.try_get::<Option<String>, _>(column).map_err(classify);
    for (setting, loses) in [("synchronous_commit", "a crash"), ("fsync", "a power cut")] {
        if text(setting)?.as_deref() == Some("off") {
            let message = format!(
                "{setting} is off for this session, so {loses} can lose an acknowledged record: turn it on for the role \
                 (ALTER ROLE … SET {setting}), the database or the server, and look at what a pooler sets"
            );
            return Err(StoreError::cannot_open(message));
        }
    }
    if text("versions_in")?.is_none() {
        return Ok(Found { version: 0, schema: None });
    }
    let may = row.try_get::<Option<bool>, _>("may").map_err(classify)?;
    if may == Some(false) {
        let message = format!(
            "this role lacks a right: GRANT SELECT, INSERT, UPDATE, DELETE ON {} and GRANT SELECT ON {} to it, as in \
             sql/postgres/grants.sql",
            names.table("records"),
            names.table("schema")
        );
        return Err(StoreError::cannot_open(message));
    }
    let version = sqlx::query_scalar(safe(schema::read_version(names))).persistent(false).fetch_one(on).await;
    let version = version.map_err(classify)?;
    let schema = text("records_in")?;
    if version > 0 && schema.is_none() {
        return Err(schema::loss(names));
    }
    Ok(Found { version, schema })
}

/// Takes the steps that are missing, unless another process has taken them since.
async fn migrate(on: &mut PgConnection, names: &Names) -> Result<(), StoreError> {
    // Another process may migrate for long; a table may be large. The tables of that process must be visible afterwards
    // under any isolation of the role.
    let settings = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 0; \
        SET LOCAL statement_timeout = 0";
    sqlx::raw_sql(settings).execute(&mut *on).await.map_err(classify)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").persistent(false).bind(MIGRATION_LOCK);
    lock.execute(&mut *on).await.map_err(classify)?;
    if let Some(schema) = &names.schema {
        let exists = "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)";
        let exists = sqlx::query_scalar(exists).persistent(false).bind(schema).fetch_one(&mut *on).await;
        if !exists.map_err(classify)? {
            let message = format!("there is no schema {schema:?}: CREATE SCHEMA {}", quote(schema));
            return Err(StoreError::cannot_open(message));
        }
        let path = safe(format!("SET LOCAL search_path TO {}", quote(schema)));
        sqlx::raw_sql(path).execute(&mut *on).await.map_err(classify)?;
    }
    let found = look(&mut *on, names).await?;
    for step in schema::missing_steps(found.version, STEPS)? {
        sqlx::raw_sql(safe(names.step(step))).execute(&mut *on).await.map_err(classify)?;
    }
    Ok(())
}

/// Refuses a pool that leads to a pooler in transaction mode without saying so: a statement that is prepared by name in
/// one session would run what another client has prepared under that name in the next.
///
/// Two connections that are open at once are two sessions, unless a pooler is in between. A busy pooler may hide it.
async fn refuse_shared_sessions(pool: &PgPool) -> Result<(), StoreError> {
    let mut one = pool.acquire().await.map_err(classify)?;
    if pool.options().get_max_connections() < 2 {
        return Ok(());
    }
    let Ok(Ok(mut two)) = timeout(PATIENCE, pool.acquire()).await else { return Ok(()) };
    let first = session(&mut one).await?;
    for _ in 0..3 {
        if session(&mut two).await? == first || session(&mut one).await? != first {
            let message =
                "a pooler in transaction mode gives several connections one session: open the store with \
                           `PostgresStore::builder(pool).behind_pooler()`, or connect directly"
                    .to_owned();
            return Err(StoreError::cannot_open(message));
        }
    }
    Ok(())
}

async fn session(on: &mut PoolConnection<Postgres>) -> Result<i32, StoreError> {
    let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(&mut **on).await.map_err(classify)?;
    Ok(row.try_get(0).map_err(classify)?)
}
