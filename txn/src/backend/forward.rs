//! Implements the methods of the driver that sqlx has alike on every database.
//!
//! A macro, because sqlx implements `Executor` and its bindings for each connection type by itself: as
//! bounds of a generic function they would be longer than what they save.

/// The methods of [`Driver`](super::Driver) that differ between databases in the connection's type only.
macro_rules! forward_to_sqlx {
    ($connection:ty) => {
        fn fetch_many<'e, 'q: 'e, E>(
            connection: &'e mut $connection,
            query: E,
        ) -> ::futures_util::stream::BoxStream<'e, $crate::backend::Step<Self>>
        where
            E: ::sqlx::Execute<'q, Self> + 'q,
        {
            ::sqlx::Executor::fetch_many(connection, query)
        }

        fn fetch_optional<'e, 'q: 'e, E>(
            connection: &'e mut $connection,
            query: E,
        ) -> BoxFuture<'e, Result<Option<Self::Row>, ::sqlx::Error>>
        where
            E: ::sqlx::Execute<'q, Self> + 'q,
        {
            ::sqlx::Executor::fetch_optional(connection, query)
        }

        fn prepare_with<'e>(
            connection: &'e mut $connection,
            sql: ::sqlx::SqlStr,
            parameters: &'e [Self::TypeInfo],
        ) -> BoxFuture<'e, Result<Self::Statement, ::sqlx::Error>> {
            ::sqlx::Executor::prepare_with(connection, sql, parameters)
        }

        fn describe<'e>(
            connection: &'e mut $connection,
            sql: ::sqlx::SqlStr,
        ) -> BoxFuture<'e, Result<::sqlx::Describe<Self>, ::sqlx::Error>> {
            ::sqlx::Executor::describe(connection, sql)
        }

        fn first_column<'r, T>(row: &'r Self::Row) -> Result<T, ::sqlx::Error>
        where
            T: ::sqlx::Decode<'r, Self> + ::sqlx::Type<Self>,
        {
            ::sqlx::Row::try_get(row, 0)
        }

        fn store_result<'e>(
            connection: &'e mut $connection,
            table: &'e str,
            token: &'e str,
            result: &'e str,
            named: bool,
        ) -> BoxFuture<'e, Result<u64, ::sqlx::Error>> {
            Box::pin(async move {
                let text = ::sqlx::AssertSqlSafe($crate::backend::tokens::store(table));
                let stored = ::sqlx::query(text).bind(token).bind(result).persistent(named);
                Ok(stored.execute(connection).await?.rows_affected())
            })
        }

        fn purge_step<'e>(
            connection: &'e mut $connection,
            table: &'e str,
            after: &'e str,
            age_ms: i64,
        ) -> BoxFuture<'e, Result<Option<(String, u64)>, ::sqlx::Error>> {
            Box::pin(async move {
                let walk = ::sqlx::AssertSqlSafe($crate::backend::tokens::walk(table));
                let last: Option<String> =
                    ::sqlx::query_scalar(walk).bind(after).fetch_one(&mut *connection).await?;
                let Some(last) = last else { return Ok(None) };
                let purge = ::sqlx::AssertSqlSafe(Self::purge_text(table));
                let purge = ::sqlx::query(purge).bind(after).bind(&last).bind(age_ms);
                let purged = purge.execute(connection).await?.rows_affected();
                Ok(Some((last, purged)))
            })
        }
    };
}

pub(super) use forward_to_sqlx;
