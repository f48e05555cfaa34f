//! PostgreSQL: isolation and timeouts travel with BEGIN, so they cost no round trip of their own.

use std::fmt::Write as _;

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use sqlx::{AssertSqlSafe, Describe, Execute, Executor, PgConnection, Postgres, SqlStr};

use super::{Backend, Driver, Fate, Mark, Step};
use crate::classify::Class;
use crate::settings::{Isolation, Settings};

impl Backend for Postgres {}

impl Driver for Postgres {
    // In an aborted transaction the first statement fails with 25P02, so the COMMIT that would be
    // answered by a silent ROLLBACK is never reached. It also keeps a statement timeout from
    // interrupting the commit itself.
    const COMMIT: &'static str = "SET LOCAL statement_timeout = 0; COMMIT";
    const ROLLBACK: &'static str = "ROLLBACK";

    fn fetch_many<'e, 'q: 'e, E>(connection: &'e mut PgConnection, query: E) -> BoxStream<'e, Step<Self>>
    where
        E: Execute<'q, Self> + 'q,
    {
        connection.fetch_many(query)
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        connection: &'e mut PgConnection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<Self::Row>, sqlx::Error>>
    where
        E: Execute<'q, Self> + 'q,
    {
        connection.fetch_optional(query)
    }

    fn prepare_with<'e>(
        connection: &'e mut PgConnection,
        sql: SqlStr,
        parameters: &'e [Self::TypeInfo],
    ) -> BoxFuture<'e, Result<Self::Statement, sqlx::Error>> {
        connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(
        connection: &'e mut PgConnection,
        sql: SqlStr,
    ) -> BoxFuture<'e, Result<Describe<Self>, sqlx::Error>> {
        Executor::describe(connection, sql)
    }

    fn supports(_isolation: Isolation) -> bool {
        true
    }

    fn begin<'e>(
        connection: &'e mut PgConnection,
        settings: &'e Settings,
    ) -> BoxFuture<'e, Result<Option<Mark>, sqlx::Error>> {
        async move {
            let preamble = preamble(settings);
            sqlx::raw_sql(AssertSqlSafe(preamble)).execute(connection).await?;
            Ok(None)
        }
        .boxed()
    }

    fn classify(code: &str) -> Class {
        Class::of_sqlstate(code)
    }

    fn commit_left_open(code: &str) -> bool {
        code == "40003" || Class::of_sqlstate(code) == Class::ConnectionLost
    }

    fn fate<'e>(
        _connection: &'e mut PgConnection,
        _mark: &'e Mark,
    ) -> BoxFuture<'e, Result<Fate, sqlx::Error>> {
        future::ready(Ok(Fate::Unknown)).boxed()
    }
}

/// BEGIN and the SET LOCALs as one simple query: values are numbers we format ourselves.
fn preamble(settings: &Settings) -> String {
    let mut sql = String::with_capacity(192);
    sql.push_str(match settings.isolation {
        None => "BEGIN",
        Some(Isolation::ReadCommitted) => "BEGIN ISOLATION LEVEL READ COMMITTED",
        Some(Isolation::RepeatableRead) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        Some(Isolation::Serializable) => "BEGIN ISOLATION LEVEL SERIALIZABLE",
    });
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
    }
}
