//! The seam between the runner and a database: one folder per database.
//!
//! Invariant: everything the runner knows about SQL dialects, error codes and drivers comes through
//! [`Driver`]; a further database is one more folder.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sqlx::database::HasStatementCache;
use sqlx::error::DatabaseError;
use sqlx::{Decode, Either, Execute, SqlStr, Type};

use crate::classify::Class;
use crate::isolation::Isolation;
use crate::settings::{Locals, Settings};

use dialect::Dialect;
use lock_syntax::LockSyntax;

pub(crate) mod dialect;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod forward;
pub(crate) mod lexer;
pub(crate) mod lock_syntax;
pub(crate) mod own_answer;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod tokens;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod words;

/// A database this crate can run transactions on: `sqlx::Sqlite` or `sqlx::Postgres`.
///
/// The trait is sealed; its methods are the crate's own business.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a database that probity-txn was built for",
    note = "enable the feature `sqlite` for sqlx::Sqlite, or `postgres` for sqlx::Postgres"
)]
pub trait Backend: Driver {}

/// An item of a query stream of `DB`.
pub(crate) type Step<DB> =
    Result<Either<<DB as sqlx::Database>::QueryResult, <DB as sqlx::Database>::Row>, sqlx::Error>;

/// The mark by which a transaction can be looked up after its COMMIT got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(crate) xid: u64,
    pub(crate) timeline: u32,
    pub(crate) server: Arc<ServerRun>,
}

/// A server between two resets of its statistics.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerRun {
    pub(crate) system: String,
    pub(crate) stats_epoch: String,
}

/// An open transaction as another connection finds it: the session's process, and when the transaction began, in
/// microseconds. Both together name one transaction of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxAddress {
    pub(crate) process: i32,
    pub(crate) began: i64,
}

/// The facts that come with the answer to BEGIN.
#[derive(Debug, Default)]
pub struct Begun {
    /// The mark, if it was asked for and the server can be asked about a lost COMMIT.
    pub(crate) mark: Option<Mark>,
    /// The address, if it was asked for and a statement can be cancelled.
    pub(crate) address: Option<TxAddress>,
}

/// The status of a transaction whose COMMIT got no answer, by another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStatus {
    /// The transaction is durable.
    Committed,
    /// The transaction will never be committed.
    Aborted,
    /// The server still works on it; ask again.
    InProgress,
    /// This server cannot tell.
    Unknown,
}

/// The table of tokens that a claim met, and the role that met it.
#[derive(Debug)]
pub struct Home {
    /// The number of the table, where the session decides what its name means.
    pub(crate) table: Option<i64>,
    /// The role of the session, where it has one.
    pub(crate) role: Option<String>,
}

/// The answer of the table of tokens to a claim.
#[derive(Debug)]
pub enum Claim {
    /// The token was free, and no other transaction can take it until this one ends.
    Fresh(Home),
    /// A run with this token was committed.
    Stored {
        /// Its label.
        label: String,
        /// Its result.
        result: String,
        /// The table that holds it.
        home: Home,
    },
    /// The token of another run came or went in between; look again in a fresh transaction.
    Moving,
}

/// The driver behind a [`Backend`].
pub trait Driver: sqlx::Database + HasStatementCache {
    /// Creates the table of tokens, for [`Once`](crate::Once).
    const TOKENS: &'static str;
    /// The schema of tables that are named without one; none where the session decides.
    const SCHEMA: Option<&'static str>;
    /// The number of parameters that a statement can have.
    const PARAMETERS_MAX: usize;
    /// The syntax of row locks; none where the only writer holds every row since BEGIN.
    const LOCKS: Option<&'static LockSyntax>;
    /// The rules by which the database reads a statement.
    type Dialect: Dialect;

    /// Runs one statement on the connection.
    fn fetch_many<'e, 'q: 'e, E>(connection: &'e mut Self::Connection, query: E) -> BoxStream<'e, Step<Self>>
    where
        E: Execute<'q, Self> + 'q;

    /// Runs one statement and keeps the first row.
    fn fetch_optional<'e, 'q: 'e, E>(
        connection: &'e mut Self::Connection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<Self::Row>, sqlx::Error>>
    where
        E: Execute<'q, Self> + 'q;

    /// Prepares a statement.
    fn prepare_with<'e>(
        connection: &'e mut Self::Connection,
        sql: SqlStr,
        parameters: &'e [Self::TypeInfo],
    ) -> BoxFuture<'e, Result<Self::Statement, sqlx::Error>>;

    /// Describes a statement; sqlx's query macros ask for it at build time.
    fn describe<'e>(
        connection: &'e mut Self::Connection,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<sqlx::Describe<Self>, sqlx::Error>>;

    /// Tells whether the database has this isolation level.
    fn supports(isolation: Isolation) -> bool;

    /// Ends the transaction durably, and fails when the transaction was already aborted: a bare
    /// COMMIT would be answered by a silent ROLLBACK there. `narrowed` undoes what [`narrows`](Driver::narrows)
    /// announced.
    fn commit_text(narrowed: bool) -> &'static str;

    /// Brings the session to a state without a transaction, from any state.
    fn rollback_text(narrowed: bool) -> &'static str;

    /// Tells whether BEGIN of a read-only run will change more than the transaction: the session, which then has to
    /// be changed back. One that its owner made read-only stays as it is.
    fn narrows(connection: &mut Self::Connection) -> BoxFuture<'_, Result<bool, sqlx::Error>>;

    /// Opens the transaction in one round trip, with its isolation and timeouts; `marked` asks for
    /// what a lost COMMIT can be looked up by. Fails where a run that may write meets a server that takes no writes.
    fn begin<'e>(
        connection: &'e mut Self::Connection,
        settings: &'e Settings,
        marked: bool,
    ) -> BoxFuture<'e, Result<Begun, sqlx::Error>>;

    /// Cancels, on another connection, the statement that the transaction at `address` is busy with.
    fn cancel(
        connection: &mut Self::Connection,
        address: TxAddress,
    ) -> BoxFuture<'_, Result<(), sqlx::Error>>;

    /// Names the server that the pool's connections lead to, for messages: never with the password.
    fn server(options: &<Self::Connection as sqlx::Connection>::Options) -> String;

    /// Gives the remedy for an error of this code where a transaction could not be opened.
    fn remedy(code: &str) -> Option<&'static str>;

    /// The statements that make the settings of a transaction.
    fn locals_text(locals: &Locals) -> String;

    /// Tells whether BEGIN failed because the connection is inside a transaction already.
    fn is_inside(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error says that a table or a column is not there, or that its name needs quotes.
    fn names_nothing(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error says that a key cannot be compared with the column.
    fn compares_nothing(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error says that a table or its schema is not there.
    fn lacks_table(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error says that no unique key fits an ON CONFLICT.
    fn lacks_key(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error says that the role lacks a right.
    fn forbids(error: &dyn DatabaseError) -> bool;

    /// Tells whether the error is that of a CREATE TABLE IF NOT EXISTS that looked before another's was
    /// committed.
    fn is_concurrent_create(error: &dyn DatabaseError) -> bool;

    /// Reads an error of this database.
    fn classify(error: &dyn DatabaseError) -> Class;

    /// Tells whether this error, given as the answer to COMMIT, leaves the outcome open.
    fn leaves_commit_open(error: &dyn DatabaseError) -> bool;

    /// Asks, on another connection, what became of the transaction behind `mark`.
    fn commit_status<'e>(
        connection: &'e mut Self::Connection,
        mark: &'e Mark,
    ) -> BoxFuture<'e, Result<CommitStatus, sqlx::Error>>;

    /// Reads the first column of a row.
    fn first_column<'r, T>(row: &'r Self::Row) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Self> + Type<Self>;

    /// Inserts the token, or reads the label and the result that an earlier run stored with it. `named` says whether
    /// the session may keep the statements.
    fn claim_token<'e>(
        connection: &'e mut Self::Connection,
        table: &'e str,
        token: &'e str,
        label: &'e str,
        named: bool,
    ) -> BoxFuture<'e, Result<Claim, sqlx::Error>>;

    /// Asks which table the session means by `name`; none where there is none, or where its name says it all.
    fn table_number<'e>(
        connection: &'e mut Self::Connection,
        name: &'e str,
    ) -> BoxFuture<'e, Result<Option<i64>, sqlx::Error>>;

    /// The name of the table with this number, with its schema; none for a temporary one.
    fn qualified_name(
        connection: &mut Self::Connection,
        table: i64,
    ) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>>;

    /// Makes the transaction run as the role that it began with.
    fn become_role<'e>(
        connection: &'e mut Self::Connection,
        role: &'e str,
    ) -> BoxFuture<'e, Result<(), sqlx::Error>>;

    /// Writes the result beside the token that this transaction inserted; answers how many rows that were.
    fn store_result<'e>(
        connection: &'e mut Self::Connection,
        table: &'e str,
        token: &'e str,
        result: &'e str,
        named: bool,
    ) -> BoxFuture<'e, Result<u64, sqlx::Error>>;

    /// The statement that deletes the tokens behind `$1` up to `$2` whose run began more than `$3` milliseconds ago,
    /// by the database's clock.
    fn purge_text(table: &str) -> String;

    /// Walks over the next tokens behind `after`, deletes those whose run began longer ago, and says
    /// where it stopped and how many it deleted; `None` at the end.
    fn purge_step<'e>(
        connection: &'e mut Self::Connection,
        table: &'e str,
        after: &'e str,
        age_ms: i64,
    ) -> BoxFuture<'e, Result<Option<(String, u64)>, sqlx::Error>>;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The types, features and SQL of single databases.
    const OWN: [&str; 8] = [
        "sqlx::postgres",
        "sqlx::Postgres",
        "sqlx::sqlite",
        "sqlx::Sqlite",
        "feature = \"postgres\"",
        "feature = \"sqlite\"",
        "NO KEY UPDATE",
        "pg_advisory",
    ];

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn a_database_is_known_in_its_folder_only() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let shared = |path: &PathBuf| {
            // lib.rs and this file declare modules; sqlstate.rs stands in several crates; a fuzz target is a test.
            !path.starts_with(src.join("backend"))
                && !path.ends_with("fuzzing.rs")
                && !["lib.rs", "backend.rs", "sqlstate.rs"].iter().any(|name| *path == src.join(name))
        };
        let shared: Vec<PathBuf> = files(&src).into_iter().filter(shared).collect();
        assert!(shared.len() > 30, "{shared:?}");
        for path in shared {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(all(test").next().and_then(|text| text.split("#[cfg(test)]").next());
            // A fuzz target may need both databases, which its cfg says.
            let speaks =
                |line: &&str| !line.trim_start().starts_with("//") && !line.contains("(test, fuzzing)");
            for line in code.unwrap_or_default().lines().filter(speaks) {
                assert!(!OWN.iter().any(|own| line.contains(own)), "{}: {line}", path.display());
            }
        }
    }
}
