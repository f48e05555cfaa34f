//! The tables of this version, and the way to them from older ones.

use sqlx::sqlite::{SqliteConnection, SqlitePool};

use crate::error::StoreError;
use crate::store::migration::Version;
use crate::store::rows::store_error;
use crate::store::tables::Tables;

/// One file per version, beginning with [`Version::FIRST`]; each records its version itself. Never change a file that
/// was released.
const MIGRATIONS: &[&str] = &[include_str!("../../../sql/sqlite/0003_tables.sql")];

/// Checks the tables; with `may_create`, makes those that are missing.
pub(super) async fn prepare(pool: &SqlitePool, tables: &Tables, may_create: bool) -> Result<(), StoreError> {
    let failed = |error| store_error("migrate the saga tables", error);
    let mut connection = pool.acquire().await.map_err(failed)?;
    let found = version(&mut connection, tables).await.map_err(failed)?;
    drop(connection);
    match Version(found).steps_to_newest(MIGRATIONS)?.first() {
        None => Ok(()),
        Some(_) if may_create => migrate(pool, tables).await,
        Some((version, _)) => Err(StoreError::not_applied(
            "verify the saga tables",
            format!(
                "version {version} of the table {} and the others of this crate is missing: run the files of this \
                 version, those of its folder sql/sqlite, or what SqliteStoreBuilder::ddl answers for these names",
                tables.name("saga_heads"),
            ),
        )),
    }
}

/// Answers all of this version, for a database that has none of it.
pub(super) fn ddl(tables: &Tables) -> Result<String, StoreError> {
    Version::whole(MIGRATIONS, tables)
}

/// The version that is there; 0 if none is.
async fn version(connection: &mut SqliteConnection, tables: &Tables) -> Result<i64, sqlx::Error> {
    let exists =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)");
    if !exists.bind(tables.name("saga_schema")).fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    let newest = sqlx::query_scalar(tables.sql("SELECT COALESCE(MAX(version), 0) FROM saga_schema"));
    newest.fetch_one(connection).await
}

/// Brings the tables to this version, or refuses those that this version cannot use.
async fn migrate(pool: &SqlitePool, tables: &Tables) -> Result<(), StoreError> {
    let failed = |error| store_error("migrate the saga tables", error);
    // IMMEDIATE: two processes that start together migrate one after the other.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let found = version(&mut tx, tables).await.map_err(failed)?;
    for (_version, migration) in Version(found).steps_to_newest(MIGRATIONS)? {
        sqlx::raw_sql(tables.sql(migration)).execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_records_its_version() {
        assert_eq!(Version::without_a_record(MIGRATIONS), Vec::<i64>::new());
    }
}
