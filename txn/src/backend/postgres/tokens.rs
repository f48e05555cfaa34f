//! The table of tokens on PostgreSQL.
//!
//! The search path of the session resolves a name without a schema. Therefore each claim answers which table it found,
//! by its number, and the caller compares that with the table of earlier claims.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::backend::{Claim, Home, tokens};

/// Inserts the token, or reads what an earlier run stored with it. `RETURNING` costs no round trip.
pub(super) async fn claim(
    connection: &mut PgConnection,
    table: &str,
    token: &str,
    label: &str,
    named: bool,
) -> Result<Claim, sqlx::Error> {
    let insert = tokens::insert(table) + " RETURNING tableoid::bigint, pg_catalog.current_setting('role')";
    let fresh: Option<(i64, String)> = sqlx::query_as(AssertSqlSafe(insert))
        .bind(token)
        .bind(label)
        .persistent(named)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some((table, role)) = fresh {
        return Ok(Claim::Fresh(Home { table: Some(table), role: Some(role) }));
    }
    // A separate statement sees the row of the winner for which the insert waited.
    let select = format!("SELECT label, result, tableoid::bigint FROM {table} WHERE token = $1");
    let stored = sqlx::query_as(AssertSqlSafe(select)).bind(token).persistent(named);
    let stored: Option<(String, String, i64)> = stored.fetch_optional(connection).await?;
    Ok(stored.map_or(Claim::Moving, |(label, result, table)| Claim::Stored {
        label,
        result,
        home: Home { table: Some(table), role: None },
    }))
}

/// The number of the table that the session finds by `name`, quoted.
pub(super) async fn table_number(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<i64>, sqlx::Error> {
    let number = "SELECT pg_catalog.to_regclass($1)::oid::bigint";
    sqlx::query_scalar(number).bind(name).persistent(false).fetch_one(connection).await
}

/// The name of a table with its schema, both quoted; none for a temporary one.
pub(super) async fn qualified_name(
    connection: &mut PgConnection,
    table: i64,
) -> Result<Option<String>, sqlx::Error> {
    let name = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
        FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = $1::bigint::pg_catalog.oid AND c.relpersistence <> 't'";
    // This runs once per table, so no session keeps it prepared.
    sqlx::query_scalar(name).bind(table).persistent(false).fetch_optional(connection).await
}

/// Makes the transaction run as `role` again.
pub(super) async fn become_role(connection: &mut PgConnection, role: &str) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_catalog.set_config('role', $1, true)")
        .bind(role)
        .persistent(false)
        .execute(connection)
        .await
        .map(drop)
}
