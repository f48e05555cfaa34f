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

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Either, Executor, PgConnection, Row as _};

use crate::backend::{CommitStatus, Mark, ServerRun};

/// The version from which the statistics live in memory. Before it they live in a file that is too slow to ask for
/// in every transaction.
const STATISTICS_IN_MEMORY: u32 = 150_000;

const TIMELINE: &str = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
/// The time of the last reset of the statistics, as a number: the text of a time depends on settings of the session.
const STATS_EPOCH: &str = "extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())::text";

/// The columns of a mark. A standby refuses the first one: it has neither a place in the log nor transaction ids to give.
pub(super) const QUESTION: &str = "pg_walfile_name(pg_current_wal_lsn()), pg_current_xact_id(), \
     extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())";

const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// The servers seen so far, by the reset of the statistics that came with them.
///
/// The server reads its identifier from a file, which would cost each transaction more than its own
/// COMMIT. The moment of the reset, in microseconds, already tells servers apart: only a copy of a
/// server that was stopped has the same, and that has the same identifier too.
static SERVERS: Mutex<Vec<Arc<ServerRun>>> = Mutex::new(Vec::new());

/// Tells whether a mark may travel with BEGIN: the server is new enough.
pub(super) fn is_cheap(connection: &PgConnection) -> bool {
    connection.server_version_num().is_some_and(|version| version >= STATISTICS_IN_MEMORY)
}

/// Reads the answer to [`QUESTION`], which begins in `column`.
pub(super) async fn mark(
    connection: &mut PgConnection,
    row: &PgRow,
    column: usize,
) -> Result<Mark, sqlx::Error> {
    // The name of a file of the log begins with its timeline.
    let timeline = text(row, column)?.get(..8).unwrap_or_default();
    let timeline = u32::from_str_radix(timeline, 16).map_err(sqlx::Error::decode)?;
    let xid = text(row, column + 1)?.parse().map_err(sqlx::Error::decode)?;
    let stats_epoch = row.try_get_unchecked::<Option<&str>, _>(column + 2)?.unwrap_or_default();
    Ok(Mark { xid, timeline, server: server(connection, stats_epoch).await? })
}

/// The server behind the connection; costs a round trip at its first sight.
async fn server(connection: &mut PgConnection, stats_epoch: &str) -> Result<Arc<ServerRun>, sqlx::Error> {
    // A panic of another thread leaves the list consistent.
    let known = |servers: &mut Vec<Arc<ServerRun>>| {
        servers.iter().find(|server| server.stats_epoch == stats_epoch).cloned()
    };
    if let Some(server) = known(&mut SERVERS.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(server);
    }
    let row = first_row(connection, SYSTEM.to_owned()).await?.ok_or(sqlx::Error::RowNotFound)?;
    let server = Arc::new(ServerRun { system: row.try_get(0)?, stats_epoch: stats_epoch.to_owned() });
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    if !stats_epoch.is_empty() && known(&mut servers).is_none() {
        servers.push(Arc::clone(&server));
    }
    Ok(server)
}

/// A value of a simple query, whose answers are all text.
pub(super) fn text(row: &PgRow, column: usize) -> Result<&str, sqlx::Error> {
    row.try_get_unchecked(column)
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
    let Mark { xid, timeline, server } = mark;
    let expected = format!("{}/{timeline:08X}", server.system);
    let text = format!(
        "SELECT server, stats_epoch, CASE WHEN server = '{expected}' THEN pg_xact_status('{xid}'::xid8) END
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
    if row.try_get::<&str, _>(0)? != expected {
        return Ok(CommitStatus::Unknown);
    }
    let stats_epoch: Option<&str> = row.try_get(1)?;
    let status: Option<&str> = row.try_get(2)?;
    Ok(judge(status, stats_epoch == Some(server.stats_epoch.as_str())))
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
