//! The question that travels with BEGIN: where the transaction can be found while it is open, whether it may write,
//! and whether it is a new one.
//!
//! An abandoned statement would go on, with all its locks. sqlx keeps the key of the protocol's own
//! cancel request to itself, so another session cancels it by `pg_cancel_backend`.

use sqlx::{PgConnection, Row as _};

use super::xact_status::{self, WRITABLE, first_row};
use crate::backend::own_answer::OwnAnswer;
use crate::backend::{Begun, TxAddress};
use crate::settings::Settings;

/// The process of the session, and when its transaction began, in microseconds.
const ADDRESS: &str = "pg_backend_pid()::text, (extract(epoch FROM now()) * 1000000)::bigint::text";

/// Tells a transaction that began with this message from one that was left open: now() is when it began, and
/// statement_timestamp() is when the server received the message.
const BEGAN_JUST_NOW: &str = "now() = statement_timestamp()";

/// Answers the BEGIN of a run that may write, before it writes, on a server that takes no writes.
fn read_only_server() -> sqlx::Error {
    // read_only_sql_transaction
    OwnAnswer::with_code(
        "25006",
        "the server takes no writes: it is a standby, or default_transaction_read_only is on",
    )
}

/// Answers a BEGIN inside a transaction that is open already, where PostgreSQL only warns.
fn inside_a_transaction() -> sqlx::Error {
    // active_sql_transaction
    OwnAnswer::with_code("25001", "there is already a transaction in progress")
}

/// Sends the preamble, and asks in the same round trip for what the run will want to know.
pub(super) async fn begin(
    connection: &mut PgConnection,
    mut preamble: String,
    settings: &Settings,
    marked: bool,
) -> Result<Begun, sqlx::Error> {
    let mark = if marked { xact_status::question(connection) } else { None };
    if mark.is_none() && !settings.policy.cancel_abandoned {
        first_row(connection, preamble).await.map_err(|error| explain_standby(error, settings))?;
        return Ok(Begun::default());
    }
    for part in ["; SELECT ", ADDRESS, ", (", WRITABLE, ")::text, (", BEGAN_JUST_NOW, ")::text"] {
        preamble.push_str(part);
    }
    if let Some(mark) = &mark {
        preamble.push_str(", ");
        preamble.push_str(mark);
    }
    let row = first_row(connection, preamble).await.map_err(|error| explain_standby(error, settings))?;
    let row = row.ok_or(sqlx::Error::RowNotFound)?;
    // This check comes first, because a transaction that was left open may be read-only as well.
    if row.try_get::<&str, _>(3)? == "false" {
        return Err(inside_a_transaction());
    }
    if !settings.read_only && row.try_get::<&str, _>(2)? == "false" {
        return Err(read_only_server());
    }
    let number = |column| row.try_get::<&str, _>(column)?.parse::<i64>().map_err(sqlx::Error::decode);
    let address = match i32::try_from(number(0)?) {
        Ok(process) => Some(TxAddress { process, began: number(1)? }),
        Err(_) => None,
    };
    let mark = match mark {
        Some(_) => Some(xact_status::mark(connection, &row, 4).await?),
        None => None,
    };
    Ok(Begun { mark, address: address.filter(|_| settings.policy.cancel_abandoned) })
}

/// A standby refuses SERIALIZABLE before it could say that it takes no writes. feature_not_supported, of which
/// BEGIN knows no other.
fn explain_standby(error: sqlx::Error, settings: &Settings) -> sqlx::Error {
    let code = error.as_database_error().and_then(|answer| answer.code());
    if !settings.read_only && code.as_deref() == Some("0A000") {
        return read_only_server();
    }
    error
}

/// Cancels the statement of the session, if it still is in that transaction: no other transaction is hit, and none on
/// another server. The user of the session may do it, and so may a role that has its role.
pub(super) async fn cancel(connection: &mut PgConnection, address: TxAddress) -> Result<(), sqlx::Error> {
    let TxAddress { process, began } = address;
    let text = format!(
        "SELECT pg_cancel_backend(pid)::text FROM pg_stat_activity WHERE pid = {process} AND state = 'active'
         AND (extract(epoch FROM xact_start) * 1000000)::bigint = {began}"
    );
    first_row(connection, text).await.map(drop)
}
