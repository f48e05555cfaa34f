//! The tables of this version: where they are, the way to them from older ones, and the rights they need.

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Row as _};

use crate::error::StoreError;
use crate::store::migration::Version;
use crate::store::rows::store_error;
use crate::store::tables::Tables;

/// Any two processes that migrate agree on this number.
const MIGRATION_LOCK: i64 = 0x5A6A_0001;

/// One file per version, beginning with [`Version::FIRST`]; each records its version itself. Never change a file that
/// was released.
const MIGRATIONS: &[&str] = &[include_str!("../../../sql/postgres/0003_tables.sql")];

/// The rights that the engine needs on each table. `grants.sql` grants the same.
const RIGHTS: [(&str, &str); 6] = [
    ("saga_schema", "SELECT"),
    ("saga_heads", "SELECT, INSERT, UPDATE, DELETE"),
    ("saga_step_rows", "SELECT, INSERT, UPDATE, DELETE"),
    ("saga_workers", "SELECT, INSERT, UPDATE, DELETE"),
    ("saga_definitions", "SELECT, INSERT, UPDATE"),
    ("saga_audit", "INSERT"),
];

/// Finds the tables and checks them; with `may_create`, makes those that are missing.
///
/// All in one transaction, because behind a pooler only that has one session of the server.
pub(super) async fn prepare(
    pool: &PgPool,
    schema: Option<&str>,
    prefix: &str,
    may_create: bool,
) -> Result<Tables, StoreError> {
    let failed = |error| store_error("look at the saga tables", error);
    let mut tx = pool.begin().await.map_err(failed)?;
    let place = match schema {
        Some(schema) => schema.to_owned(),
        None => found_by_search_path(&mut tx, prefix).await?,
    };
    let tables = Tables::new(Some(&place), prefix)?;
    let steps = Version(version(&mut tx, &tables).await.map_err(failed)?).steps_to_newest(MIGRATIONS)?;
    match steps.first() {
        None => {}
        Some(_) if may_create => {
            let failed = |error| store_error("migrate the saga tables", error);
            lock(&mut tx).await.map_err(failed)?;
            make_schema(&mut tx, &place).await.map_err(failed)?;
            // Another process may have made them while this one waited.
            let found = version(&mut tx, &tables).await.map_err(failed)?;
            for (_version, migration) in Version(found).steps_to_newest(MIGRATIONS)? {
                sqlx::raw_sql(tables.sql(migration)).execute(&mut *tx).await.map_err(failed)?;
            }
        }
        Some((version, _)) => {
            let files =
                "those of its folder sql/postgres, or what PostgresStoreBuilder::ddl answers for these names";
            return Err(StoreError::not_applied(
                "verify the saga tables",
                format!(
                    "version {version} of the tables {} and the others of this crate is missing: let the owner of the \
                     database run the files of this version, {files}",
                    tables.name("saga_heads"),
                ),
            ));
        }
    }
    check_rights(&mut tx, &tables).await?;
    tx.commit().await.map_err(failed)?;
    Ok(tables)
}

/// Answers all of this version, for a database that has none of it.
pub(super) fn ddl(tables: &Tables) -> Result<String, StoreError> {
    Version::whole(MIGRATIONS, tables)
}

/// The schema in which a session without further words finds the tables, or would make them.
async fn found_by_search_path(tx: &mut PgConnection, prefix: &str) -> Result<String, StoreError> {
    let operation = "find the saga tables";
    let find =
        "SELECT COALESCE((SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                 WHERE c.oid = to_regclass($1)), current_schema())::text AS place";
    let row = sqlx::query(find).persistent(false).bind(format!("{prefix}schema")).fetch_one(tx).await;
    let place = row.and_then(|row| row.try_get::<Option<String>, _>("place"));
    place.map_err(|error| store_error(operation, error))?.ok_or_else(|| {
        let why = "the search path of the role names no schema that exists and that the role may use: choose one with \
                   PostgresStore::builder(pool).schema(..)";
        StoreError::not_applied(operation, why)
    })
}

/// The version that is there; 0 if none is.
async fn version(tx: &mut PgConnection, tables: &Tables) -> Result<i64, sqlx::Error> {
    let exists = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").persistent(false);
    if !exists.bind(tables.name("saga_schema")).fetch_one(&mut *tx).await? {
        return Ok(0);
    }
    let newest = sqlx::query_scalar(tables.sql("SELECT COALESCE(MAX(version), 0) FROM saga_schema"));
    newest.persistent(false).fetch_one(tx).await
}

/// Any two processes that migrate do so one after the other.
async fn lock(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Another process may migrate for long; a table may be large.
    let patience = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0";
    sqlx::raw_sql(patience).execute(&mut *tx).await?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").persistent(false).bind(MIGRATION_LOCK);
    lock.execute(tx).await.map(drop)
}

/// Looks first: `IF NOT EXISTS` needs the right to create schemas even if there is nothing to create.
async fn make_schema(tx: &mut PgConnection, place: &str) -> Result<(), sqlx::Error> {
    let missing = sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    if missing.persistent(false).bind(place).fetch_one(&mut *tx).await? {
        let create = sqlx::query_scalar("SELECT format('CREATE SCHEMA %I', $1::text)").persistent(false);
        let create: String = create.bind(place).fetch_one(&mut *tx).await?;
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *tx).await?;
    }
    Ok(())
}

/// A right that is missing would be found out by the first payment that needs it.
async fn check_rights(tx: &mut PgConnection, tables: &Tables) -> Result<(), StoreError> {
    let operation = "check the rights on the saga tables";
    let mut missing = Vec::new();
    for (table, rights) in RIGHTS {
        let name = tables.name(table);
        for right in rights.split(", ") {
            let ask = sqlx::query_scalar("SELECT has_table_privilege($1, $2)").persistent(false);
            let granted: Result<bool, _> = ask.bind(&name).bind(right).fetch_one(&mut *tx).await;
            if !granted.map_err(|error| store_error(operation, error))? {
                missing.push(format!("{right} on {name}"));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!(
        "the role may not {}: let the owner of the tables run the file grants.sql of this crate",
        missing.join(", ")
    );
    Err(StoreError::not_applied(operation, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_records_its_version() {
        assert_eq!(Version::without_a_record(MIGRATIONS), Vec::<i64>::new());
    }

    #[test]
    fn the_published_grants_are_the_rights_that_are_checked() {
        let grants = include_str!("../../../sql/postgres/grants.sql");
        for (table, rights) in RIGHTS {
            let granted =
                grants.lines().any(|line| line == format!("GRANT {rights} ON {table} TO payments;"));
            assert!(granted, "{rights} on {table}");
        }
    }
}
