//! The driver of PostgreSQL. Isolation and timeouts travel with BEGIN, so they cost no round trip of their own.

use futures_util::future::{self, BoxFuture, FutureExt};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgQueryResult};
use sqlx::{PgConnection, Postgres};

use super::forward::forward_to_sqlx;
use super::lock_syntax::LockSyntax;
use super::{Backend, Begun, Claim, CommitStatus, Driver, Mark, TxAddress};
use crate::affected::Affected;
use crate::classify::Class;
use crate::isolation::Isolation;
use crate::settings::{Locals, Settings};
use crate::sqlstate::{self, Outcome};

use preamble::{preamble, set_locals};

mod classify;
mod dialect;
mod effects;
mod lock;
mod open;
mod preamble;
mod set_local;
mod tokens;
mod xact_status;

impl Backend for Postgres {}

impl Affected for PgQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Driver for Postgres {
    const TOKENS: &'static str = include_str!("../../sql/postgres/v1.sql");
    const SCHEMA: Option<&'static str> = None;
    const PARAMETERS_MAX: usize = 65_535;
    const LOCKS: Option<&'static LockSyntax> = Some(&lock::SYNTAX);
    type Dialect = dialect::PostgresDialect;

    forward_to_sqlx!(PgConnection);

    fn supports(_isolation: Isolation) -> bool {
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

    fn classify(error: &dyn DatabaseError) -> Class {
        classify::classify(error)
    }

    fn leaves_commit_open(error: &dyn DatabaseError) -> bool {
        sqlstate::of(error).commit == Outcome::Unknown
    }

    fn commit_status<'e>(
        connection: &'e mut PgConnection,
        mark: &'e Mark,
    ) -> BoxFuture<'e, Result<CommitStatus, sqlx::Error>> {
        xact_status::look_up(connection, mark).boxed()
    }
}
