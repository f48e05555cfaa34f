//! PostgreSQL: isolation and timeouts travel with BEGIN, so they cost no round trip of their own.

use std::fmt::Write as _;

use futures_util::future::{self, BoxFuture, FutureExt};
use sqlx::error::DatabaseError;
use sqlx::{PgConnection, Postgres};

use super::forward::forward_to_sqlx;
use super::{Backend, Claim, Driver, Fate, Mark};
use crate::classify::Class;
use crate::settings::{Isolation, Settings};

mod fate;
mod tokens;

impl Backend for Postgres {}

impl Driver for Postgres {
    const TOKENS: &'static str = include_str!("../../sql/postgres/v1.sql");
    const SCHEMA: Option<&'static str> = None;
    const PARAMETERS_MAX: usize = 65_535;

    forward_to_sqlx!(PgConnection);

    fn supports(_isolation: Isolation) -> bool {
        true
    }

    fn locks_rows() -> bool {
        true
    }

    // In an aborted transaction the first statement fails with 25P02, so the COMMIT that would be
    // answered by a silent ROLLBACK is never reached. It also keeps a statement timeout from
    // interrupting the commit itself.
    fn commit_text(_narrowed: bool) -> &'static str {
        "SET LOCAL statement_timeout = 0; COMMIT"
    }

    fn rollback_text(_narrowed: bool) -> &'static str {
        "ROLLBACK"
    }

    // READ ONLY belongs to the transaction here.
    fn narrows(_connection: &mut PgConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        future::ready(Ok(false)).boxed()
    }

    fn begin<'e>(
        connection: &'e mut PgConnection,
        settings: &'e Settings,
        marked: bool,
    ) -> BoxFuture<'e, Result<Option<Mark>, sqlx::Error>> {
        fate::begin(connection, preamble(settings), marked).boxed()
    }

    // undefined_table, undefined_column, syntax_error (of a reserved word), invalid_schema_name
    fn names_nothing(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("42P01" | "42703" | "42601" | "3F000"))
    }

    // undefined_function: there is no `=` for the two
    fn compares_nothing(error: &dyn DatabaseError) -> bool {
        error.code().as_deref() == Some("42883")
    }

    // undefined_table, invalid_schema_name
    fn lacks_table(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("42P01" | "3F000"))
    }

    // invalid_column_reference: "no unique or exclusion constraint matching the ON CONFLICT specification"
    fn lacks_key(error: &dyn DatabaseError) -> bool {
        error.code().as_deref() == Some("42P10")
    }

    // insufficient_privilege
    fn forbids(error: &dyn DatabaseError) -> bool {
        error.code().as_deref() == Some("42501")
    }

    fn claim_token<'e>(
        connection: &'e mut PgConnection,
        table: &'e str,
        token: &'e str,
        label: &'e str,
    ) -> BoxFuture<'e, Result<Claim, sqlx::Error>> {
        tokens::claim(connection, table, token, label).boxed()
    }

    fn qualified(
        connection: &mut PgConnection,
        table: i64,
    ) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>> {
        tokens::qualified(connection, table).boxed()
    }

    fn become_role<'e>(
        connection: &'e mut PgConnection,
        role: &'e str,
    ) -> BoxFuture<'e, Result<(), sqlx::Error>> {
        tokens::become_role(connection, role).boxed()
    }

    fn purge_text(table: &str) -> String {
        format!(
            "DELETE FROM {table} WHERE token > $1 AND token <= $2
                AND created_at < now() - $3::bigint * interval '1 millisecond'"
        )
    }

    // unique_violation in the catalogues, duplicate_table, duplicate_object (its row type)
    fn created_meanwhile(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("23505" | "42P07" | "42710"))
    }

    fn classify(code: &str) -> Class {
        Class::of_sqlstate(code)
    }

    fn commit_left_open(code: &str) -> bool {
        code == "40003" || Class::of_sqlstate(code) == Class::ConnectionLost
    }

    fn fate<'e>(
        connection: &'e mut PgConnection,
        mark: &'e Mark,
    ) -> BoxFuture<'e, Result<Fate, sqlx::Error>> {
        fate::look_up(connection, mark).boxed()
    }
}

/// BEGIN and the SET LOCALs as one simple query: values are numbers we format ourselves.
fn preamble(settings: &Settings) -> String {
    // With the question for the transaction's id behind it.
    let mut sql = String::with_capacity(320);
    sql.push_str(match settings.isolation {
        // Always said: the default of the database, the role or the session may be one at which a lock
        // that was waited for proves nothing.
        None | Some(Isolation::ReadCommitted) => "BEGIN ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => "BEGIN ISOLATION LEVEL SERIALIZABLE",
    });
    if settings.read_only {
        sql.push_str(" READ ONLY");
    }
    let policy = &settings.policy;
    for (name, value) in [
        ("lock_timeout", policy.lock_timeout),
        ("statement_timeout", policy.statement_timeout),
        ("idle_in_transaction_session_timeout", policy.idle_timeout),
    ] {
        if let Some(timeout) = value {
            let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128);
            // Writing to a String cannot fail.
            let _ = write!(sql, "; SET LOCAL {name} = {milliseconds}");
        }
    }
    sql
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;

    #[test]
    fn the_preamble_is_one_query_with_isolation_and_timeouts() {
        let settings = Settings {
            isolation: Some(Isolation::Serializable),
            policy: Policy {
                lock_timeout: Some(Duration::from_secs(2)),
                statement_timeout: None,
                idle_timeout: Some(Duration::from_micros(3)),
                ..Policy::payments()
            },
            ..Settings::new("capture")
        };
        assert_eq!(
            preamble(&settings),
            "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL lock_timeout = 2000; \
             SET LOCAL idle_in_transaction_session_timeout = 1"
        );
        let unsaid = preamble(&Settings::new("capture"));
        assert!(unsaid.starts_with("BEGIN ISOLATION LEVEL READ COMMITTED; "), "{unsaid}");
    }
}
