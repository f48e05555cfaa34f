//! Rows of the SQL stores, as both databases return them: the statements cast ids and times to text
//! and numbers to 64 bits, so that one decoder serves both.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::str::FromStr;
use std::time::Duration;

use sqlx::Row as _;
use sqlx::error::DatabaseError;
#[cfg(feature = "postgres")]
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::error::{Effect, StoreError};
use crate::record::{Document, Instance, Journal, OpenCounts, Requests, SagaId, Settled, StepRow};
#[cfg(feature = "postgres")]
use crate::sqlstate::{self, Condition, Outcome, SqlState};
use crate::status::{Status, StepStatus};

/// Reads the few types that the statements return.
pub(super) trait Columns {
    fn text(&self, column: &'static str) -> Result<String, sqlx::Error>;
    fn maybe_text(&self, column: &'static str) -> Result<Option<String>, sqlx::Error>;
    fn number(&self, column: &'static str) -> Result<i64, sqlx::Error>;
    fn maybe_number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error>;
}

macro_rules! columns {
    ($row:ty) => {
        impl Columns for $row {
            fn text(&self, column: &'static str) -> Result<String, sqlx::Error> {
                self.try_get(column)
            }
            fn maybe_text(&self, column: &'static str) -> Result<Option<String>, sqlx::Error> {
                self.try_get(column)
            }
            fn number(&self, column: &'static str) -> Result<i64, sqlx::Error> {
                self.try_get(column)
            }
            fn maybe_number(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
                self.try_get(column)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
columns!(sqlx::sqlite::SqliteRow);
#[cfg(feature = "postgres")]
columns!(sqlx::postgres::PgRow);

fn parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Result<T, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.text(column)?.parse().map_err(|error: T::Err| decode_error(column, error))
}

fn maybe_parsed<T: FromStr>(row: &impl Columns, column: &'static str) -> Result<Option<T>, sqlx::Error>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.maybe_text(column)?;
    text.map(|text| text.parse()).transpose().map_err(|error: T::Err| decode_error(column, error))
}

fn small(row: &impl Columns, column: &'static str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.number(column)?).map_err(|error| decode_error(column, error))
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

fn decode_error(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: Box::new(source) }
}

/// Remembers what could not be read of a saga.
#[derive(Default)]
struct Faults(Option<String>);

impl Faults {
    fn note(&mut self, fault: String) {
        self.0 = Some(match self.0.take() {
            Some(before) => format!("{before}; {fault}"),
            None => fault,
        });
    }

    fn or<T>(&mut self, instead: T, read: Result<T, sqlx::Error>) -> T {
        read.unwrap_or_else(|error| {
            self.note(error.to_string());
            instead
        })
    }
}

/// Reads a saga as far as it can be read. A saga with a status that this version does not know counts as stopped.
pub(super) fn instance(row: &impl Columns) -> Result<Instance, sqlx::Error> {
    let mut faults = Faults::default();
    let mut instance = Instance {
        id: parsed(row, "id")?,
        saga_type: faults.or(String::new(), row.text("business_type")),
        business_id: faults.or(String::new(), row.text("business_id")),
        definition: faults.or(String::new(), row.text("definition")),
        status: faults.or(Status::Paused, parsed(row, "status")),
        resume_status: faults.or(None, maybe_parsed(row, "resume_status")),
        reason: faults.or(None, row.maybe_text("error_message")),
        current_step: faults.or(0, small(row, "current_step")),
        input: Document::from_stored(faults.or(String::new(), row.text("input"))),
        input_hash: faults.or(String::new(), row.text("input_hash")),
        owner: faults.or(None, maybe_parsed(row, "owner_id")),
        epoch: faults.or(0, row.number("lease_epoch")),
        write_no: faults.or(0, row.number("write_no")),
        // An unreadable row may have an open effect.
        unresolved: faults.or(1, small(row, "unresolved")),
        row_version: faults.or(0, row.number("row_version")),
        stalled_claims: faults.or(0, small(row, "stalled_claims")),
        cancel_requested: faults.or(None, row.maybe_text("cancel_reason")),
        pause_requested: faults.or(0, row.number("pause_requested")) != 0,
        age: millis(faults.or(0, row.number("age_ms"))),
        trace: faults.or(None, row.maybe_text("trace")),
        unreadable: None,
    };
    instance.unreadable = faults.0;
    Ok(instance)
}

pub(super) fn step(row: &impl Columns) -> Result<StepRow, sqlx::Error> {
    Ok(StepRow {
        order: small(row, "step_order")?,
        name: row.text("step_name")?.into(),
        status: parsed::<StepStatus>(row, "status")?,
        output: row.maybe_text("result")?.map(Document::from_stored),
        evidence: row.maybe_text("evidence")?,
        error: row.maybe_text("error_message")?,
        retries: small(row, "retry_count")?,
        retries_max: small(row, "max_retry_count")?,
        undo_retries: small(row, "undo_retry_count")?,
        completion: small(row, "completion_no")?,
        retry_in: row.maybe_number("retry_in_ms")?.map(millis),
        resolved_by: row.maybe_text("resolved_by")?,
    })
}

pub(super) fn requests(row: &impl Columns) -> Result<Requests, sqlx::Error> {
    Ok(Requests { cancel: row.maybe_text("cancel_reason")?, pause: row.number("pause_requested")? != 0 })
}

pub(super) fn asked(row: &impl Columns) -> Result<(SagaId, Requests), sqlx::Error> {
    Ok((parsed(row, "id")?, requests(row)?))
}

/// Puts steps to their sagas. An unreadable row marks its own saga, and no other.
pub(super) fn journals<R: Columns>(instances: &[R], steps: &[R]) -> Vec<Journal> {
    let mut journals: Vec<Journal> = Vec::with_capacity(instances.len());
    let mut at = std::collections::HashMap::with_capacity(instances.len());
    for row in instances {
        match instance(row) {
            Ok(instance) => {
                at.insert(instance.id.to_string(), journals.len());
                journals.push(Journal { instance, steps: Vec::new() });
            }
            Err(error) => tracing::error!(%error, "the saga store skips a row whose id cannot be read"),
        }
    }
    for row in steps {
        let Ok(saga) = row.text("saga_id") else { continue };
        let Some(at) = at.get(&saga).copied() else { continue };
        let Journal { instance, steps } = &mut journals[at];
        match step(row) {
            Ok(step) => steps.push(step),
            Err(error) => {
                let mut faults = Faults(instance.unreadable.take());
                faults.note(format!("the row of a step: {error}"));
                instance.unreadable = faults.0;
            }
        }
    }
    journals
}

/// Definitions as the statements compare them.
pub(super) fn definitions(runnable: &[(String, String)]) -> Vec<String> {
    runnable.iter().map(|(name, print)| format!("{name} {print}")).collect()
}

pub(super) fn open_counts(row: &impl Columns) -> Result<OpenCounts, sqlx::Error> {
    let count = |column| Ok::<_, sqlx::Error>(u64::try_from(row.number(column)?).unwrap_or(0));
    Ok(OpenCounts {
        saga_type: row.text("business_type")?,
        status: parsed(row, "status")?,
        sagas: count("sagas")?,
        oldest: millis(row.number("oldest_ms")?),
        unrunnable: count("unrunnable")?,
    })
}

/// Reads the sagas that came to rest, by their own rows alone.
pub(super) fn settled<R: Columns>(rows: &[R]) -> Vec<Settled> {
    let read = |row: &R| {
        let mut faults = Faults::default();
        let status = faults.or(Status::Paused, parsed(row, "status"));
        let reason = faults.or(None, row.maybe_text("error_message"));
        let step = faults.or(0, small(row, "current_step"));
        Ok::<_, sqlx::Error>(Settled { saga: parsed(row, "id")?, status, step, reason: faults.0.or(reason) })
    };
    rows.iter().filter_map(|row| read(row).ok()).collect()
}

/// Reads the error of a statement that was its own transaction.
pub(super) fn store_error(operation: &'static str, error: sqlx::Error) -> StoreError {
    if is_contended(&error) {
        return StoreError::contended(operation, error);
    }
    match effect(&error) {
        Effect::NotApplied if may_be_of_one_saga(&error) => StoreError::of_one_saga(operation, error),
        Effect::NotApplied => StoreError::not_applied(operation, error),
        Effect::Unknown if may_be_of_one_saga(&error) => {
            StoreError::of_one_saga(operation, error).after_a_write()
        }
        Effect::Unknown => StoreError::ambiguous(operation, error),
    }
}

/// PostgreSQL's `lock_timeout` and `statement_timeout`. SQLite locks the whole file: there no other writer could write.
fn is_contended(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|answer| answer.code());
    matches!(code.as_deref(), Some("55P03" | "57014"))
}

/// Tells whether the database went away, or cannot be used at all just now, as opposed to an answer that is
/// about the statement.
pub(crate) fn is_gone(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(answer) => is_gone_by_its_answer(&**answer),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

fn is_gone_by_its_answer(answer: &dyn DatabaseError) -> bool {
    #[cfg(feature = "sqlite")]
    if answer.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        /// An I/O error, and a disk that is full.
        const UNUSABLE: [i32; 2] = [10, 13];
        let code = answer.code().unwrap_or_default();
        return code.parse::<i32>().is_ok_and(|code| UNUSABLE.contains(&(code & 0xff)));
    }
    judged(answer).gone
}

/// The database answered, and not about itself.
fn may_be_of_one_saga(error: &sqlx::Error) -> bool {
    let Some(answer) = error.as_database_error() else { return false };
    #[cfg(feature = "sqlite")]
    if answer.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        let code = answer.code().unwrap_or_default();
        return is_about_a_row(&code);
    }
    !judged(answer).server
}

/// TOOBIG, CONSTRAINT and MISMATCH of SQLite, in any extension.
#[cfg(feature = "sqlite")]
pub(super) fn is_about_a_row(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 18..=20))
}

/// The judgement of an answer of PostgreSQL.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    effect: Effect,
    /// The database went away, or cannot be used at all just now.
    gone: bool,
    /// The answer is about the server, its sessions or its tables: every saga would meet it. A missing right may come
    /// from a policy on rows, and a damaged page may hold the rows of a single saga.
    server: bool,
}

#[cfg(feature = "postgres")]
fn judged(answer: &dyn DatabaseError) -> Judged {
    judge(sqlstate::of(answer), ends_the_session(answer))
}

/// Tells whether the server ended the session, or refused one. No record of a saga does that, whatever the code.
#[cfg(feature = "postgres")]
pub(crate) fn ends_the_session(answer: &dyn DatabaseError) -> bool {
    let answer = answer.try_downcast_ref::<PgDatabaseError>();
    answer.is_some_and(|answer| matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// SQLite has no sessions.
#[cfg(not(feature = "postgres"))]
pub(crate) fn ends_the_session(_: &dyn DatabaseError) -> bool {
    false
}

/// SQLite answers with result codes alone, which were read before.
#[cfg(not(feature = "postgres"))]
fn judged(_: &dyn DatabaseError) -> Judged {
    Judged { effect: Effect::Unknown, gone: false, server: false }
}

#[cfg(feature = "postgres")]
fn judge(state: SqlState, ends_the_session: bool) -> Judged {
    use Condition::{
        ConnectionLost, Constraint, Corrupt, Data, Forbidden, NotConnected, Resources, SessionTimeout,
        TooManyConnections, Unrecognized,
    };
    let effect = match state.statement {
        Outcome::RolledBack => Effect::NotApplied,
        Outcome::Unknown => Effect::Unknown,
    };
    let gone = matches!(state.condition, ConnectionLost | NotConnected | TooManyConnections | Resources)
        || (ends_the_session && state.condition != SessionTimeout);
    let server = ends_the_session
        || !matches!(state.condition, Constraint | Data | Forbidden | Corrupt | Unrecognized);
    Judged { effect, gone, server }
}

/// Makes an answer to COMMIT that leaves it open one that says nothing. The same answer to a statement may prove that
/// nothing was applied.
#[cfg(feature = "postgres")]
pub(super) fn of_commit(error: sqlx::Error) -> sqlx::Error {
    let open = |answer: &dyn DatabaseError| sqlstate::of(answer).commit == Outcome::Unknown;
    if error.as_database_error().is_some_and(open) {
        return sqlx::Error::Io(std::io::Error::other(error));
    }
    error
}

fn effect(error: &sqlx::Error) -> Effect {
    match error {
        sqlx::Error::Database(answer) => effect_of_answer(&**answer),
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Encode(_) => Effect::NotApplied,
        // Also an answer that cannot be decoded: the statement was executed.
        _ => Effect::Unknown,
    }
}

/// The database answered: it refused, unless it says that it does not know either.
fn effect_of_answer(answer: &dyn DatabaseError) -> Effect {
    #[cfg(feature = "sqlite")]
    if answer.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        let code = answer.code().unwrap_or_default();
        return effect_of_result_code(&code);
    }
    judged(answer).effect
}

/// The results after which SQLite has rolled the statement back, in any extension: ERROR, PERM, ABORT, BUSY, LOCKED,
/// READONLY, INTERRUPT, FULL, SCHEMA, TOOBIG, CONSTRAINT, MISMATCH, MISUSE, AUTH and RANGE. After an I/O error it cannot
/// say whether a commit reached the disk, and others, such as a file that is corrupt, say nothing.
#[cfg(feature = "sqlite")]
fn effect_of_result_code(code: &str) -> Effect {
    const ROLLED_BACK: [i32; 15] = [1, 3, 4, 5, 6, 8, 9, 13, 17, 18, 19, 20, 21, 23, 25];
    match code.parse::<i32>() {
        Ok(code) if ROLLED_BACK.contains(&(code & 0xff)) => Effect::NotApplied,
        _ => Effect::Unknown,
    }
}

/// A JSON array of strings, the form in which lists travel to SQLite.
#[cfg(feature = "sqlite")]
pub(super) fn json_list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    serde_json::Value::from(items).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each column: the code, whether its effect is known to be none, whether the database is gone, whether it is about
    /// the server.
    #[cfg(feature = "postgres")]
    #[test]
    fn an_error_code_tells_the_effect_the_reach_of_the_database_and_the_scope() {
        for (code, none, gone, server) in [
            ("08006", false, true, true),
            ("40003", false, true, true),
            ("57P01", false, true, true),
            ("57P03", true, true, true),
            ("57P05", true, true, true),
            ("53100", true, true, true),
            ("53300", true, true, true),
            ("53400", true, true, true),
            ("25P03", true, false, true),
            ("25P04", false, false, true),
            ("25006", true, false, true),
            ("40001", true, false, true),
            ("42P01", true, false, true),
            ("42501", true, false, false),
            ("23514", true, false, false),
            ("22021", true, false, false),
            ("P0001", true, false, false),
            ("58030", false, false, true),
            ("XX001", false, false, false),
            ("XX000", false, false, false),
            ("", false, false, false),
        ] {
            let judged = judge(sqlstate::read(code, sqlstate::Severity::Unsigned), false);
            let effect = if none { Effect::NotApplied } else { Effect::Unknown };
            assert_eq!(judged, Judged { effect, gone, server }, "{code}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn an_error_that_ends_the_session_is_never_about_one_saga() {
        for code in ["42501", "XX000", "XX001", "P0001", "22023", "25P03", ""] {
            let judged = judge(sqlstate::read(code, sqlstate::Severity::Fatal), true);
            assert!(judged.server && judged.gone == (code != "25P03"), "{code}: {judged:?}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn only_a_result_after_which_sqlite_rolled_back_proves_that_nothing_was_written() {
        // IOERR, its extensions for read, fsync and a commit that is not atomic; NOMEM, CORRUPT, CANTOPEN, NOTADB.
        for code in ["10", "266", "1034", "7690", "7", "11", "14", "26", ""] {
            assert_eq!(effect_of_result_code(code), Effect::Unknown, "{code}");
        }
        // BUSY, LOCKED, READONLY, FULL, CONSTRAINT_UNIQUE, CONSTRAINT_CHECK.
        for code in ["5", "6", "8", "13", "2067", "275"] {
            assert_eq!(effect_of_result_code(code), Effect::NotApplied, "{code}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_decoded_leaves_the_effect_unknown() {
        let error = sqlx::Error::ColumnDecode { index: "id".into(), source: "not a uuid".into() };
        assert_eq!(store_error("insert a saga", error).effect(), Effect::Unknown);
        assert_eq!(store_error("insert a saga", sqlx::Error::PoolTimedOut).effect(), Effect::NotApplied);
    }
}
