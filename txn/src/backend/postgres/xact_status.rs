//! Asks for the status of a transaction whose COMMIT got no answer.
//!
//! The transaction id is fetched together with BEGIN; afterwards another connection can ask for its
//! status. Two traps make a status lie, and each has its guard:
//!
//! * After a failover to an asynchronous standby the same id may belong to another one. The
//!   system identifier and the timeline must be those of the beginning.
//! * After a crash the server may hand out again an id that never reached the log. A crash also
//!   discards the statistics, so the time of their reset must be that of the beginning before
//!   "committed" is believed. "Aborted" is true either way: an id that was given away again was
//!   not committed by us.

use std::sync::{Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Either, Executor, PgConnection, Row as _};

use crate::backend::{CommitStatus, Mark};

/// The version from which the statistics live in memory. Before it they live in a file that is too slow to ask for
/// in every transaction.
const STATISTICS_IN_MEMORY: u32 = 150_000;

const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
/// The time of the last reset of the statistics, as a number: the text of a time depends on settings of the session.
const STATS_EPOCH: &str = "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())::text";
/// A standby has neither transaction ids to give nor a place in the log.
pub(super) const WRITABLE: &str = "current_setting('transaction_read_only') = 'off'";
const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// The system identifiers seen so far, by the reset of the statistics that came with them.
///
/// The server reads its identifier from a file, which would cost each transaction more than its own
/// COMMIT. The moment of the reset, in microseconds, already tells servers apart: only a copy of a
/// server that was stopped has the same, and that has the same identifier too.
static SYSTEMS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// The columns of a mark, which travel with BEGIN if the server is new enough.
pub(super) fn question(connection: &PgConnection) -> Option<String> {
    let version = connection.server_version_num()?;
    (version >= STATISTICS_IN_MEMORY)
        .then(|| format!("CASE WHEN {WRITABLE} THEN pg_current_xact_id()::text END, CASE WHEN {WRITABLE} THEN {TIMELINE} END, {STATS_EPOCH}"))
}

/// Reads the answer to [`question`], which begins in `column`.
pub(super) async fn mark(
    connection: &mut PgConnection,
    row: &PgRow,
    column: usize,
) -> Result<Mark, sqlx::Error> {
    let xid = row.try_get(column)?;
    let timeline: String = row.try_get(column + 1)?;
    let stats_epoch = row.try_get::<Option<String>, _>(column + 2)?.unwrap_or_default();
    let system = system(connection, &stats_epoch).await?;
    Ok(Mark { xid, server: format!("{system}/{timeline}"), stats_epoch })
}

/// The system identifier; costs a round trip at the first sight of a server.
async fn system(connection: &mut PgConnection, stats_epoch: &str) -> Result<String, sqlx::Error> {
    // A panic of another thread leaves the list consistent.
    let known = |systems: &mut Vec<(String, String)>| {
        systems.iter().find(|(epoch, _)| epoch == stats_epoch).map(|(_, system)| system.clone())
    };
    if let Some(system) = known(&mut SYSTEMS.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(system);
    }
    let row = first_row(connection, SYSTEM.to_owned()).await?.ok_or(sqlx::Error::RowNotFound)?;
    let system: String = row.try_get(0)?;
    let mut systems = SYSTEMS.lock().unwrap_or_else(PoisonError::into_inner);
    if !stats_epoch.is_empty() && known(&mut systems).is_none() {
        systems.push((stats_epoch.to_owned(), system.clone()));
    }
    Ok(system)
}

/// The first row of a simple query, whose answer is read to its end.
pub(super) async fn first_row(
    connection: &mut PgConnection,
    sql: String,
) -> Result<Option<PgRow>, sqlx::Error> {
    let mut steps = connection.fetch_many(AssertSqlSafe(sql));
    let mut first = None;
    while let Some(step) = steps.try_next().await? {
        if let Either::Right(row) = step {
            first.get_or_insert(row);
        }
    }
    Ok(first)
}

/// Asks for the status of the transaction behind `mark`: in one statement, so that it is one server that says who
/// it is and what it knows, and as a simple query. Behind a pooler the next message may go to another session.
pub(super) async fn look_up(connection: &mut PgConnection, mark: &Mark) -> Result<CommitStatus, sqlx::Error> {
    let (expected, xid) = (literal(&mark.server), literal(&mark.xid));
    let text = format!(
        "SELECT server, stats_epoch, CASE WHEN server = {expected} THEN pg_xact_status({xid}::xid8) END
         FROM (SELECT ({SYSTEM}) || '/' || {TIMELINE} AS server, {STATS_EPOCH} AS stats_epoch) AS this"
    );
    let row = match first_row(connection, text).await {
        Ok(row) => row.ok_or(sqlx::Error::RowNotFound)?,
        // "Transaction ID is in the future": a crash forgot it, and nothing of it was kept.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("22023") => {
            return Ok(CommitStatus::Aborted);
        }
        Err(error) => return Err(error),
    };
    let server: String = row.try_get(0)?;
    let stats_epoch: Option<String> = row.try_get(1)?;
    let status: Option<String> = row.try_get(2)?;
    if server != mark.server {
        return Ok(CommitStatus::Unknown);
    }
    Ok(judge(status.as_deref(), stats_epoch.as_deref() == Some(mark.stats_epoch.as_str())))
}

/// Writes a text that the server gave before as a string constant.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn judge(status: Option<&str>, no_crash_since: bool) -> CommitStatus {
    match status {
        Some("committed") if no_crash_since => CommitStatus::Committed,
        Some("aborted") => CommitStatus::Aborted,
        Some("in progress") => CommitStatus::InProgress,
        _ => CommitStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_is_believed_only_without_a_crash_in_between() {
        assert_eq!(judge(Some("committed"), true), CommitStatus::Committed);
        assert_eq!(judge(Some("committed"), false), CommitStatus::Unknown);
        assert_eq!(judge(Some("aborted"), false), CommitStatus::Aborted);
        assert_eq!(judge(Some("in progress"), true), CommitStatus::InProgress);
        assert_eq!(judge(None, true), CommitStatus::Unknown);
    }
}
