//! The tables of this version, and the way to them from older ones.

use sqlx::Row as _;
use sqlx::sqlite::SqlitePool;

use crate::error::StoreError;
use crate::store::migration::Version;
use crate::store::rows::store_error;

/// One step per version, beginning with [`Version::FIRST`]. Never change a step that was released.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// Brings the tables to this version, or refuses those that this version cannot use.
pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let failed = |error| store_error("migrate the saga tables", error);
    // IMMEDIATE: two processes that start together migrate one after the other.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    sqlx::query("CREATE TABLE IF NOT EXISTS saga_schema (version INTEGER PRIMARY KEY NOT NULL)")
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let found: i64 = sqlx::query("SELECT COALESCE(MAX(version), 0) AS version FROM saga_schema")
        .fetch_one(&mut *tx)
        .await
        .and_then(|row| row.try_get("version"))
        .map_err(failed)?;
    for (version, migration) in Version(found).steps_to_newest(MIGRATIONS)? {
        sqlx::raw_sql(migration).execute(&mut *tx).await.map_err(failed)?;
        sqlx::query("INSERT INTO saga_schema (version) VALUES (?1)")
            .bind(version)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}
