//! Finding out what became of a transaction whose COMMIT got no answer.
//!
//! The transaction id is fetched together with BEGIN; afterwards another connection can ask for its
//! status. Two traps make a status lie, and each has its guard:
//!
//! * After a failover to an asynchronous standby the same id may belong to somebody else. The
//!   system identifier and the timeline must be those of the beginning.
//! * After a crash the server may hand out again an id that never reached the log. A crash also
//!   discards the statistics, so the time of their reset must be that of the beginning before
//!   "committed" is believed. "Aborted" is true either way: an id that was given away again was
//!   not committed by us.

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Either, Executor, PgConnection, Row as _};

use crate::backend::{Fate, Mark};
use crate::settings::Settings;

/// Before PostgreSQL 15 the statistics live in a file that is too slow to ask for in every
/// transaction.
const STATISTICS_IN_MEMORY: u32 = 150_000;

const SERVER: &str = "(SELECT system_identifier::text FROM pg_control_system()) || '/' || \
     substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
const STATS_EPOCH: &str = "pg_stat_get_bgwriter_stat_reset_time()::text";

/// Sends the preamble, and asks for the mark in the same round trip.
pub(super) async fn begin(
    connection: &mut PgConnection,
    mut preamble: String,
    settings: &Settings,
) -> Result<Option<Mark>, sqlx::Error> {
    let marked = settings.policy.look_up_lost_commits
        && !settings.read_only
        && connection.server_version_num().is_some_and(|version| version >= STATISTICS_IN_MEMORY);
    if marked {
        preamble.push_str("; SELECT pg_current_xact_id()::text, ");
        preamble.push_str(SERVER);
        preamble.push_str(", ");
        preamble.push_str(STATS_EPOCH);
    }
    let mut steps = connection.fetch_many(AssertSqlSafe(preamble));
    let mut mark = None;
    while let Some(step) = steps.try_next().await? {
        if let Either::Right(row) = step {
            mark = Some(Mark {
                xid: row.try_get(0)?,
                server: row.try_get(1)?,
                stats_epoch: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
            });
        }
    }
    Ok(mark)
}

/// Asks for the status of the transaction behind `mark`.
pub(super) async fn look_up(connection: &mut PgConnection, mark: &Mark) -> Result<Fate, sqlx::Error> {
    let identity = format!("SELECT {SERVER}, {STATS_EPOCH}");
    let row = sqlx::query(AssertSqlSafe(identity)).fetch_one(&mut *connection).await?;
    let server: String = row.try_get(0)?;
    let stats_epoch: Option<String> = row.try_get(1)?;
    if server != mark.server {
        return Ok(Fate::Unknown);
    }
    let status: Result<Option<String>, sqlx::Error> =
        sqlx::query_scalar("SELECT pg_xact_status($1::text::xid8)")
            .bind(&mark.xid)
            .fetch_one(connection)
            .await;
    Ok(match status {
        Ok(status) => judge(status.as_deref(), stats_epoch.as_deref() == Some(mark.stats_epoch.as_str())),
        // "Transaction ID is in the future": a crash forgot it, and nothing of it was kept.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("22023") => Fate::Aborted,
        Err(error) => return Err(error),
    })
}

fn judge(status: Option<&str>, no_crash_since: bool) -> Fate {
    match status {
        Some("committed") if no_crash_since => Fate::Committed,
        Some("aborted") => Fate::Aborted,
        Some("in progress") => Fate::InProgress,
        _ => Fate::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_is_believed_only_without_a_crash_in_between() {
        assert_eq!(judge(Some("committed"), true), Fate::Committed);
        assert_eq!(judge(Some("committed"), false), Fate::Unknown);
        assert_eq!(judge(Some("aborted"), false), Fate::Aborted);
        assert_eq!(judge(Some("in progress"), true), Fate::InProgress);
        assert_eq!(judge(None, true), Fate::Unknown);
    }
}
