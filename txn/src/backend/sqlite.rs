//! SQLite: one writer, so a transaction takes the write lock at BEGIN and never has to upgrade.

use futures_util::future::{self, BoxFuture, FutureExt};
use sqlx::error::DatabaseError;
use sqlx::{Executor as _, Sqlite, SqliteConnection};

use super::forward::forward_to_sqlx;
use super::{Backend, Driver, Fate, Mark};
use crate::classify::Class;
use crate::settings::{Isolation, Settings};

impl Backend for Sqlite {}

impl Driver for Sqlite {
    const TOKENS: &'static str = "CREATE TABLE IF NOT EXISTS probity_txn_tokens (
    token TEXT NOT NULL PRIMARY KEY,
    label TEXT NOT NULL,
    result TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) WITHOUT ROWID";
    const PARAMETERS_MAX: usize = 32_766;
    const PURGE: &'static str = "DELETE FROM probity_txn_tokens WHERE token > $1 AND token <= $2
    AND created_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || ($3 / 1000.0) || ' seconds')";

    forward_to_sqlx!(SqliteConnection);

    fn supports(isolation: Isolation) -> bool {
        isolation == Isolation::Serializable
    }

    fn locks_rows() -> bool {
        false
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
    ) -> BoxFuture<'e, Result<Option<Mark>, sqlx::Error>> {
        // Statement timeouts do not exist here, and the wait for the write lock is the
        // connection's busy_timeout: a pragma could not be undone for the next borrower.
        async move {
            let begin = if settings.read_only { "PRAGMA query_only = 1; BEGIN" } else { "BEGIN IMMEDIATE" };
            connection.execute(begin).await?;
            Ok(None)
        }
        .boxed()
    }

    // The code is the general one; only the text tells.
    fn names_nothing(error: &dyn DatabaseError) -> bool {
        let texts = ["no such table: ", "no such column: ", "near "];
        texts.iter().any(|text| error.message().starts_with(text))
    }

    // Everything can be compared with everything here.
    fn compares_nothing(_error: &dyn DatabaseError) -> bool {
        false
    }

    // The write lock is taken before the schema is looked at.
    fn created_meanwhile(_error: &dyn DatabaseError) -> bool {
        false
    }

    fn classify(code: &str) -> Class {
        Class::of_sqlite_code(code)
    }

    fn commit_left_open(code: &str) -> bool {
        Class::of_sqlite_code(code) == Class::Storage
    }

    fn fate<'e>(
        _connection: &'e mut SqliteConnection,
        _mark: &'e Mark,
    ) -> BoxFuture<'e, Result<Fate, sqlx::Error>> {
        future::ready(Ok(Fate::Unknown)).boxed()
    }
}
