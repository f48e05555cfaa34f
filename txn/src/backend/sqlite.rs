//! SQLite: one writer, so a transaction takes the write lock at BEGIN and never has to upgrade.

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use sqlx::{Decode, Describe, Execute, Executor, Row as _, SqlStr, Sqlite, SqliteConnection, Type};

use super::{Backend, Claim, Driver, Fate, Mark, Step, tokens};
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
    // A bare ROLLBACK fails where SQLite already ended the transaction by itself (disk full, I/O
    // error). The savepoint opens a transaction in that case, so this succeeds from every state.
    const ROLLBACK: &'static str = "SAVEPOINT probity_end; ROLLBACK; PRAGMA query_only = 0";

    fn fetch_many<'e, 'q: 'e, E>(connection: &'e mut SqliteConnection, query: E) -> BoxStream<'e, Step<Self>>
    where
        E: Execute<'q, Self> + 'q,
    {
        connection.fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        connection: &'e mut SqliteConnection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<Self::Row>, sqlx::Error>>
    where
        E: Execute<'q, Self> + 'q,
    {
        connection.fetch_optional(query)
    }

    fn prepare_with<'e>(
        connection: &'e mut SqliteConnection,
        sql: SqlStr,
        parameters: &'e [Self::TypeInfo],
    ) -> BoxFuture<'e, Result<Self::Statement, sqlx::Error>> {
        connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(
        connection: &'e mut SqliteConnection,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<Describe<Self>, sqlx::Error>> {
        Executor::describe(connection, sql)
    }

    fn supports(isolation: Isolation) -> bool {
        isolation == Isolation::Serializable
    }

    fn locks_rows() -> bool {
        false
    }

    fn commit_text(read_only: bool) -> &'static str {
        if read_only { "COMMIT; PRAGMA query_only = 0" } else { "COMMIT" }
    }

    fn begin<'e>(
        connection: &'e mut SqliteConnection,
        settings: &'e Settings,
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

    fn first_column<'r, T>(row: &'r Self::Row) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Self> + Type<Self>,
    {
        row.try_get(0)
    }

    fn claim_token<'e>(
        connection: &'e mut Self::Connection,
        token: &'e str,
        label: &'e str,
    ) -> BoxFuture<'e, Result<Claim, sqlx::Error>> {
        async move {
            let inserted =
                sqlx::query(tokens::INSERT).bind(token).bind(label).execute(&mut *connection).await?;
            if inserted.rows_affected() == 1 {
                return Ok(Claim::Fresh);
            }
            let row = sqlx::query(tokens::SELECT).bind(token).fetch_optional(connection).await?;
            match row {
                Some(row) => Ok(Claim::Stored { label: row.try_get(0)?, result: row.try_get(1)? }),
                None => Ok(Claim::Moving),
            }
        }
        .boxed()
    }

    fn store_result<'e>(
        connection: &'e mut Self::Connection,
        token: &'e str,
        result: &'e str,
    ) -> BoxFuture<'e, Result<(), sqlx::Error>> {
        async move {
            sqlx::query(tokens::STORE).bind(token).bind(result).execute(connection).await?;
            Ok(())
        }
        .boxed()
    }
}
