//! The question that travels with BEGIN: where the transaction can be found while it is open, whether it may write,
//! and whether it is a new one.
//!
//! An abandoned statement would go on, with all its locks. sqlx keeps the key of the protocol's own
//! cancel request to itself, so another session cancels it by `pg_cancel_backend`.

use sqlx::PgConnection;

use super::xact_status::{self, first_row, text};
use crate::backend::own_answer::OwnAnswer;
use crate::backend::{Begun, TxAddress};
use crate::settings::Settings;

/// The process of the session; whether the transaction began with this message, or was left open: now() is when it began,
/// and statement_timestamp() is when the server received the message; and whether it takes writes. The values are not
/// cast, because each function in a statement that is parsed for every run costs about a microsecond.
const FACTS: &str =
    "pg_backend_pid(), now() = statement_timestamp(), current_setting('transaction_read_only'), ";

/// When the transaction began, as a decimal number of seconds with six digits after the point.
const BEGAN: &str = "extract(epoch FROM now())";

/// The same from servers before version 14, where the number is a floating one, in microseconds.
const BEGAN_BEFORE_14: &str = "(extract(epoch FROM now()) * 1000000)::bigint";

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
    let mark = marked && xact_status::is_cheap(connection);
    if !mark && !settings.policy.cancel_abandoned {
        first_row(connection, preamble).await.map_err(|error| explain_standby(error, settings))?;
        return Ok(Begun::default());
    }
    preamble.push_str("; SELECT ");
    preamble.push_str(FACTS);
    let before_14 = connection.server_version_num().is_none_or(|version| version < 140_000);
    preamble.push_str(if before_14 { BEGAN_BEFORE_14 } else { BEGAN });
    if mark {
        preamble.push_str(", ");
        preamble.push_str(xact_status::QUESTION);
    }
    let row = first_row(connection, preamble).await.map_err(|error| explain_standby(error, settings))?;
    let row = row.ok_or(sqlx::Error::RowNotFound)?;
    // This check comes first, because a transaction that was left open may be read-only as well.
    if text(&row, 1)? == "f" {
        return Err(inside_a_transaction());
    }
    if !settings.read_only && text(&row, 2)? == "on" {
        return Err(read_only_server());
    }
    let process = text(&row, 0)?.parse().ok().filter(|_| settings.policy.cancel_abandoned);
    let address = match process {
        Some(process) => Some(TxAddress { process, began: microseconds(text(&row, 3)?)? }),
        None => None,
    };
    let mark = if mark { Some(xact_status::mark(connection, &row, 4).await?) } else { None };
    Ok(Begun { mark, address })
}

/// Reads seconds with six digits after the point, or microseconds.
fn microseconds(number: &str) -> Result<i64, sqlx::Error> {
    let (seconds, rest) = number.split_once('.').unwrap_or((number, ""));
    let parse = |digits: &str| digits.parse::<i64>().map_err(sqlx::Error::decode);
    if rest.is_empty() { parse(seconds) } else { Ok(parse(seconds)? * 1_000_000 + parse(rest)?) }
}

/// A standby refuses before it could say that it takes no writes: SERIALIZABLE by feature_not_supported, and the question
/// for its place in the log by object_not_in_prerequisite_state. BEGIN knows no others of these.
fn explain_standby(error: sqlx::Error, settings: &Settings) -> sqlx::Error {
    let code = error.as_database_error().and_then(|answer| answer.code());
    if !settings.read_only && matches!(code.as_deref(), Some("0A000" | "55000")) {
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
