//! PostgreSQL: isolation and timeouts travel with BEGIN, so they cost no round trip of their own.

use std::fmt::Write as _;

use futures_util::future::{self, BoxFuture, FutureExt};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Postgres};

use super::forward::forward_to_sqlx;
use super::{Backend, Begun, Claim, CommitStatus, Driver, Mark, TxAddress};
use crate::classify::Class;
use crate::isolation::Isolation;
use crate::settings::{Locals, Settings};
use crate::sqlstate::{self, Outcome};

mod open;
mod tokens;
mod xact_status;

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
    ) -> BoxFuture<'e, Result<Begun, sqlx::Error>> {
        open::begin(connection, preamble(settings), settings, marked).boxed()
    }

    fn cancel(connection: &mut PgConnection, address: TxAddress) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        open::cancel(connection, address).boxed()
    }

    fn server(options: &PgConnectOptions) -> String {
        let (user, port) = (options.get_username(), options.get_port());
        let database = options.get_database().unwrap_or(user);
        match options.get_socket() {
            Some(socket) => format!("postgres://{user}@{}/{database}", socket.display()),
            None => format!("postgres://{user}@{}:{port}/{database}", options.get_host()),
        }
    }

    fn remedy(code: &str) -> Option<&'static str> {
        Some(match code {
            "28P01" => "check the user and the password",
            "28000" => "check the user, and the server's pg_hba.conf",
            "3D000" => "create the database, or correct its name",
            "42501" => "grant the role what it lacks",
            "42P01" => "create the table: see create_token_table",
            "53300" => "give the server more max_connections, or the pools fewer",
            "57P03" => "wait until the server has started",
            "25006" => "let the pool lead to the primary, or declare the run read_only if it only reads",
            "08P01" => "behind PgBouncer, let it ignore the startup parameter that it names",
            _ => return None,
        })
    }

    fn locals_text(locals: &Locals) -> String {
        let mut sql = String::new();
        set_locals(&mut sql, locals);
        sql
    }

    // active_sql_transaction, in_failed_sql_transaction
    fn is_inside(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("25001" | "25P02"))
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
        named: bool,
    ) -> BoxFuture<'e, Result<Claim, sqlx::Error>> {
        tokens::claim(connection, table, token, label, named).boxed()
    }

    fn table_number<'e>(
        connection: &'e mut PgConnection,
        name: &'e str,
    ) -> BoxFuture<'e, Result<Option<i64>, sqlx::Error>> {
        tokens::table_number(connection, name).boxed()
    }

    fn qualified_name(
        connection: &mut PgConnection,
        table: i64,
    ) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>> {
        tokens::qualified_name(connection, table).boxed()
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
    fn is_concurrent_create(error: &dyn DatabaseError) -> bool {
        matches!(error.code().as_deref(), Some("23505" | "42P07" | "42710"))
    }

    fn classify(code: &str) -> Class {
        Class::of_sqlstate(code)
    }

    fn leaves_commit_open(code: &str) -> bool {
        sqlstate::read(code).commit == Outcome::Unknown
    }

    fn commit_status<'e>(
        connection: &'e mut PgConnection,
        mark: &'e Mark,
    ) -> BoxFuture<'e, Result<CommitStatus, sqlx::Error>> {
        xact_status::look_up(connection, mark).boxed()
    }
}

/// BEGIN and the SET LOCALs as one simple query: values are numbers we format ourselves, or quoted.
fn preamble(settings: &Settings) -> String {
    const READ_COMMITTED: &str = "READ COMMITTED";
    // With the question for the transaction's id behind it.
    let mut sql = String::with_capacity(400);
    // The level is always said: the default of the database, the role or the session may be one at which a lock that
    // was waited for proves nothing. And it is said in two steps: inside a transaction that somebody left open BEGIN only
    // warns, but a transaction that has begun to read cannot change its level, and it can have one of the two at most.
    let (first, level) = match settings.isolation {
        None | Some(Isolation::ReadCommitted) => ("REPEATABLE READ", READ_COMMITTED),
        Some(Isolation::RepeatableRead) => (READ_COMMITTED, "REPEATABLE READ"),
        Some(Isolation::Serializable) => (READ_COMMITTED, "SERIALIZABLE"),
    };
    sql.push_str("BEGIN ISOLATION LEVEL ");
    sql.push_str(first);
    if settings.read_only {
        sql.push_str(" READ ONLY");
    }
    sql.push_str("; SET TRANSACTION ISOLATION LEVEL ");
    sql.push_str(level);
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
    if !settings.locals.after_the_token {
        set_locals(&mut sql, &settings.locals);
    }
    sql
}

fn set_locals(sql: &mut String, locals: &Locals) {
    for (name, value) in &locals.values {
        // Writing to a String cannot fail.
        let _ = write!(sql, "; SET LOCAL \"{name}\" = ");
        quote(sql, value);
    }
}

/// Writes a string constant that means `value` whatever `standard_conforming_strings` and `client_encoding` are: with
/// escapes, and in ASCII alone, so that no byte of it can be half of another character.
fn quote(sql: &mut String, value: &str) {
    sql.push_str("E'");
    for character in value.chars() {
        match character {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            ' '..='~' => sql.push(character),
            other => {
                let _ = write!(sql, "\\U{:08X}", u32::from(other));
            }
        }
    }
    sql.push('\'');
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
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; \
             SET LOCAL lock_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 1"
        );
        let unsaid = preamble(&Settings { read_only: true, ..Settings::new("capture") });
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; ";
        assert!(unsaid.starts_with(begin), "{unsaid}");
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let mut sql = String::new();
        quote(&mut sql, "it's \\ é\n");
        assert_eq!(sql, "E'it''s \\\\ \\U000000E9\\U0000000A'");
    }
}
