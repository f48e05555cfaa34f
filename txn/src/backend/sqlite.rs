//! SQLite: one writer, so a transaction takes the write lock at BEGIN and never has to upgrade.

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use sqlx::{Describe, Execute, Executor, SqlStr, Sqlite, SqliteConnection};

use super::{Backend, Driver, Fate, Mark, Step};
use crate::classify::Class;
use crate::settings::{Isolation, Settings};

impl Backend for Sqlite {}

impl Driver for Sqlite {
    const COMMIT: &'static str = "COMMIT";
    // A bare ROLLBACK fails where SQLite already ended the transaction by itself (disk full, I/O
    // error). The savepoint opens a transaction in that case, so this succeeds from every state.
    const ROLLBACK: &'static str = "SAVEPOINT probity_end; ROLLBACK";

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

    fn begin<'e>(
        connection: &'e mut SqliteConnection,
        _settings: &'e Settings,
    ) -> BoxFuture<'e, Result<Option<Mark>, sqlx::Error>> {
        // Statement timeouts do not exist here, and the wait for the write lock is the
        // connection's busy_timeout: a pragma could not be undone for the next borrower.
        async move {
            connection.execute("BEGIN IMMEDIATE").await?;
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
}
