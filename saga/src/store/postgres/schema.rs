//! The tables of this version, and the way to them from older ones.

use sqlx::postgres::PgPool;

use crate::error::StoreError;
use crate::store::migration::Version;
use crate::store::rows::store_error;

/// Any two processes that migrate agree on this number.
const MIGRATION_LOCK: i64 = 0x5A6A_0001;

/// One step per version, beginning with [`Version::FIRST`]. Never change a step that was released.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// Brings the tables to this version, or refuses those that this version cannot use.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    let failed = |error| store_error("migrate the saga tables", error);
    let mut tx = pool.begin().await.map_err(failed)?;
    // Another process may migrate for long; a table may be large.
    let patience = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0";
    sqlx::raw_sql(patience).execute(&mut *tx).await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    sqlx::query("CREATE TABLE IF NOT EXISTS saga_schema (version bigint PRIMARY KEY)")
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM saga_schema")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    for (version, migration) in Version(found).steps_to_newest(MIGRATIONS)? {
        sqlx::raw_sql(migration).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("INSERT INTO saga_schema (version) VALUES ($1)")
            .bind(version)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}
