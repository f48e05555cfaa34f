//! The driver of SQLite. It has one writer, so a transaction takes the write lock at BEGIN and never has to upgrade.

use futures_util::future::{self, BoxFuture, FutureExt};
use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteQueryResult};
use sqlx::{AssertSqlSafe, Executor as _, Sqlite, SqliteConnection};

use super::forward::forward_to_sqlx;
use super::lock_syntax::LockSyntax;
use super::{Backend, Begun, Claim, CommitStatus, Driver, Home, Mark, TxAddress, tokens};
use crate::affected::Affected;
use crate::classify::Class;
use crate::isolation::Isolation;
use crate::settings::{Locals, Settings};

use classify::{classify_code, leaves_commit_open};

mod classify;
mod dialect;
mod effects;
mod lock;
pub mod options;

impl Backend for Sqlite {}

impl Affected for SqliteQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Driver for Sqlite {
    const TOKENS: &'static str = include_str!("../../sql/sqlite/v1.sql");
    // Without it a temporary table of the same name would be taken for ours.
    const SCHEMA: Option<&'static str> = Some("main");
    const PARAMETERS_MAX: usize = 32_766;
    const LOCKS: Option<&'static LockSyntax> = None;
    type Dialect = dialect::SqliteDialect;

    forward_to_sqlx!(SqliteConnection);

    fn supports(isolation: Isolation) -> bool {
        isolation == Isolation::Serializable
    }

    fn commit_text(narrowed: bool) -> &'static str {
        if narrowed { "COMMIT; PRAGMA query_only = 0" } else { "COMMIT" }
    }

    // A bare ROLLBACK fails where SQLite already ended the transaction by itself (disk full, I/O
    // error). The savepoint opens a transaction in that case, so this succeeds from every state.
    fn rollback_text(narrowed: bool) -> &'static str {
        if narrowed {
            "SAVEPOINT probity_end; ROLLBACK; PRAGMA query_only = 0"
        } else {
            "SAVEPOINT probity_end; ROLLBACK"
        }
    }

    fn narrows(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
        async {
            let already: i64 = sqlx::query_scalar("PRAGMA query_only").fetch_one(connection).await?;
            Ok(already == 0)
        }
        .boxed()
    }

    fn begin<'e>(
        connection: &'e mut SqliteConnection,
        settings: &'e Settings,
        _marked: bool,
    ) -> BoxFuture<'e, Result<Begun, sqlx::Error>> {
        // Statement timeouts do not exist here, and the wait for the write lock is the
        // connection's busy_timeout: a pragma could not be undone for the next borrower.
        async move {
            let begin = if settings.read_only { "PRAGMA query_only = 1; BEGIN" } else { "BEGIN IMMEDIATE" };
            connection.execute(begin).await?;
            Ok(Begun::default())
        }
        .boxed()
    }

    fn locals_text(_locals: &Locals) -> String {
        String::new()
    }

    fn is_inside(error: &dyn DatabaseError) -> bool {
        error.message().starts_with("cannot start a transaction within a transaction")
    }

    // There is no server that would go on by itself.
    fn cancel(
        _connection: &mut SqliteConnection,
        _address: TxAddress,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        future::ready(Ok(())).boxed()
    }

    fn server(options: &SqliteConnectOptions) -> String {
        format!("sqlite://{}", options.get_filename().display())
    }

    fn remedy(code: &str) -> Option<&'static str> {
        match classify_code(code) {
            Class::Storage => Some("look at the disk and the file's rights"),
            Class::Overloaded => Some("make room on the disk"),
            _ if code == "14" => Some("create its folder, and let this process write there"),
            _ => None,
        }
    }

    // The code is a general one, so the text decides.
    fn names_nothing(error: &dyn DatabaseError) -> bool {
        let texts = ["no such table: ", "no such column: ", "near "];
        texts.iter().any(|text| error.message().starts_with(text))
    }

    // SQLite compares values of all types.
    fn compares_nothing(_error: &dyn DatabaseError) -> bool {
        false
    }

    fn lacks_table(error: &dyn DatabaseError) -> bool {
        let texts = ["no such table: ", "unknown database "];
        texts.iter().any(|text| error.message().starts_with(text))
    }

    fn lacks_key(error: &dyn DatabaseError) -> bool {
        error.message().starts_with("ON CONFLICT clause does not match")
    }

    // There are no roles; READONLY is about the file.
    fn forbids(_error: &dyn DatabaseError) -> bool {
        false
    }

    fn claim_token<'e>(
        connection: &'e mut SqliteConnection,
        table: &'e str,
        token: &'e str,
        label: &'e str,
        _named: bool,
    ) -> BoxFuture<'e, Result<Claim, sqlx::Error>> {
        async move {
            let claim = sqlx::query(AssertSqlSafe(tokens::insert(table))).bind(token).bind(label);
            if claim.execute(&mut *connection).await?.rows_affected() == 1 {
                return Ok(Claim::Fresh(Home { table: None, role: None }));
            }
            let select = AssertSqlSafe(format!("SELECT label, result FROM {table} WHERE token = $1"));
            let stored = sqlx::query_as(select).bind(token).fetch_optional(connection).await?;
            Ok(stored.map_or(Claim::Moving, |(label, result)| Claim::Stored {
                label,
                result,
                home: Home { table: None, role: None },
            }))
        }
        .boxed()
    }

    fn table_number<'e>(
        _connection: &'e mut SqliteConnection,
        _name: &'e str,
    ) -> BoxFuture<'e, Result<Option<i64>, sqlx::Error>> {
        future::ready(Ok(None)).boxed()
    }

    fn qualified_name(
        _connection: &mut SqliteConnection,
        _table: i64,
    ) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>> {
        future::ready(Ok(None)).boxed()
    }

    fn become_role<'e>(
        _connection: &'e mut SqliteConnection,
        _role: &'e str,
    ) -> BoxFuture<'e, Result<(), sqlx::Error>> {
        future::ready(Ok(())).boxed()
    }

    fn purge_text(table: &str) -> String {
        format!(
            "DELETE FROM {table} WHERE token > $1 AND token <= $2
                AND created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || ($3 / 1000.0) || ' seconds')"
        )
    }

    // The write lock is taken before the schema is looked at.
    fn is_concurrent_create(_error: &dyn DatabaseError) -> bool {
        false
    }

    fn classify(error: &dyn DatabaseError) -> Class {
        error.code().as_deref().map_or(Class::Other, classify_code)
    }

    fn leaves_commit_open(error: &dyn DatabaseError) -> bool {
        error.code().as_deref().is_none_or(leaves_commit_open)
    }

    fn commit_status<'e>(
        _connection: &'e mut SqliteConnection,
        _mark: &'e Mark,
    ) -> BoxFuture<'e, Result<CommitStatus, sqlx::Error>> {
        future::ready(Ok(CommitStatus::Unknown)).boxed()
    }
}
