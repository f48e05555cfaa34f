//! What differs between databases: the statements, the migration lock, and how errors are read.

use std::pin::Pin;

use crate::StoreError;

/// A database this crate knows: `sqlx::Sqlite` and `sqlx::Postgres`. Sealed.
pub trait Dialect: driver::Driver {}

impl<DB: driver::Driver> Dialect for DB {}

/// A statement on its way in somebody else's transaction.
pub(crate) type Running<'e, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'e>>;

/// The part of a dialect that is nobody's business outside.
pub(crate) mod driver {
    use std::future::Future;
    use std::sync::Arc;

    use sqlx::{Database, Executor, Pool};

    use super::{Running, Value};
    use crate::error::Failure;
    use crate::machine::Entry;
    use crate::store::sql::statements::Statements;
    use crate::{IdempotencyManager, StoreError};

    pub trait Driver: Database {
        /// Whether a connection can lose an answer, so that one which still owes an answer is not worth keeping.
        const REMOTE: bool;

        /// For the caller's transactions.
        fn statements() -> &'static Statements;

        /// For connections of the store's own.
        fn own_statements() -> &'static Statements;

        /// What a failure of the driver says.
        fn classify(error: sqlx::Error) -> Failure;

        /// Creates or upgrades the schema under a lock.
        fn migrate(pool: &Pool<Self>) -> impl Future<Output = Result<(), StoreError>> + Send;

        /// What takes the calls of a store instead, where concurrent calls gain from sharing statements.
        fn sharing(pool: &Pool<Self>) -> Option<Arc<dyn IdempotencyManager>>;

        /// Runs a guarded write and says how many rows it touched. Boxed, because a handler that awaits an opaque
        /// future over a borrowed executor cannot be proven `Send` (rust-lang/rust#100013).
        fn execute<'e, 'c: 'e, E: Executor<'c, Database = Self> + 'e>(
            on: E,
            sql: &'static str,
            values: &[Value<'_>],
        ) -> Running<'e, u64>;

        /// Runs a statement that returns a record, and the database's time.
        fn returning<'e, 'c: 'e, E: Executor<'c, Database = Self> + 'e>(
            on: E,
            sql: &'static str,
            values: &[Value<'_>],
        ) -> Running<'e, Option<(Entry, u64)>>;

        /// A guarded write on a connection of the store's own.
        fn touch(
            on: &mut Self::Connection,
            sql: &'static str,
            values: &[Value<'_>],
        ) -> impl Future<Output = Result<u64, StoreError>> + Send;

        /// Runs a guarded write that returns integers from the row it touched.
        fn integers<const N: usize>(
            on: &mut Self::Connection,
            sql: &'static str,
            values: &[Value<'_>],
        ) -> impl Future<Output = Result<Option<[u64; N]>, StoreError>> + Send;

        /// Reads a record, and the database's time.
        fn read(
            on: &mut Self::Connection,
            sql: &'static str,
            record: &[u8],
        ) -> impl Future<Output = Result<Option<(Entry, u64)>, StoreError>> + Send;
    }
}

/// A bound value. The same few types serve every database.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    Text(&'static str),
    MaybeBytes(Option<&'a [u8]>),
}

/// Implements [`Dialect`]'s statements for one database: generic code over two drivers would need a page of bounds,
/// and none of it could be read.
macro_rules! impl_dialect {
    ($database:ty, $remote:literal, $statements:expr, $own_statements:expr, $migrate:path, $sharing:expr) => {
        impl $crate::store::sql::dialect::driver::Driver for $database {
            const REMOTE: bool = $remote;

            fn statements() -> &'static $crate::store::sql::statements::Statements {
                &$statements
            }

            fn own_statements() -> &'static $crate::store::sql::statements::Statements {
                &$own_statements
            }

            fn classify(error: sqlx::Error) -> $crate::error::Failure {
                classify(error)
            }

            async fn migrate(pool: &sqlx::Pool<Self>) -> Result<(), StoreError> {
                $migrate(pool).await
            }

            fn sharing(pool: &sqlx::Pool<Self>) -> Option<std::sync::Arc<dyn $crate::IdempotencyManager>> {
                $sharing(pool)
            }

            fn execute<'e, 'c: 'e, E: sqlx::Executor<'c, Database = Self> + 'e>(
                on: E,
                sql: &'static str,
                values: &[Value<'_>],
            ) -> $crate::store::sql::dialect::Running<'e, u64> {
                let running = on.execute(bind(sql, values));
                Box::pin(async move { Ok(running.await.map_err(classify)?.rows_affected()) })
            }

            fn returning<'e, 'c: 'e, E: sqlx::Executor<'c, Database = Self> + 'e>(
                on: E,
                sql: &'static str,
                values: &[Value<'_>],
            ) -> $crate::store::sql::dialect::Running<'e, Option<(Entry, u64)>> {
                let running = on.fetch_optional(bind(sql, values));
                Box::pin(async move {
                    let row = running.await.map_err(classify)?;
                    row.map(|row| decode(&row)?.into_entry()).transpose()
                })
            }

            async fn touch(
                on: &mut Self::Connection,
                sql: &'static str,
                values: &[Value<'_>],
            ) -> Result<u64, StoreError> {
                Self::execute(on, sql, values).await
            }

            async fn integers<const N: usize>(
                on: &mut Self::Connection,
                sql: &'static str,
                values: &[Value<'_>],
            ) -> Result<Option<[u64; N]>, StoreError> {
                let Some(row) = bind(sql, values).fetch_optional(on).await.map_err(classify)? else {
                    return Ok(None);
                };
                let mut integers = [0; N];
                for (index, integer) in integers.iter_mut().enumerate() {
                    let value: i64 = sqlx::Row::try_get(&row, index).map_err(classify)?;
                    *integer = u64::try_from(value).unwrap_or(0);
                }
                Ok(Some(integers))
            }

            async fn read(
                on: &mut Self::Connection,
                sql: &'static str,
                record: &[u8],
            ) -> Result<Option<(Entry, u64)>, StoreError> {
                let reading = bind(sql, &[Value::Bytes(record)]).fetch_optional(on);
                let row = reading.await.map_err(|error| classify(error).nothing_written())?;
                let entry = row.map(|row| decode(&row)?.into_entry()).transpose();
                entry.map_err(StoreError::nothing_written)
            }
        }

        fn bind<'q>(
            sql: &'static str,
            values: &[Value<'_>],
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments> {
            values.iter().fold(sqlx::query(sql), |query, value| match *value {
                Value::Int(integer) => query.bind(i64::try_from(integer).unwrap_or(i64::MAX)),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text),
                Value::MaybeBytes(bytes) => query.bind(bytes),
            })
        }

        fn decode(row: &<$database as sqlx::Database>::Row) -> Result<StoredRow, StoreError> {
            use sqlx::Row;
            let read = || -> Result<StoredRow, sqlx::Error> {
                Ok(StoredRow {
                    fingerprint: row.try_get("fingerprint")?,
                    effects: row.try_get("effects")?,
                    state: row.try_get("state")?,
                    token: row.try_get("token")?,
                    fence: row.try_get("fence")?,
                    attempt: row.try_get("attempt")?,
                    effect_at: row.try_get("effect_at")?,
                    lease_until: row.try_get("lease_until")?,
                    cap_until: row.try_get("cap_until")?,
                    expires_at: row.try_get("expires_at")?,
                    status: row.try_get("status")?,
                    headers: row.try_get("headers")?,
                    body: row.try_get("body")?,
                    location: row.try_get("location")?,
                    reason: row.try_get("reason")?,
                    now: row.try_get("now")?,
                })
            };
            Ok(read().map_err(classify)?)
        }
    };
}
pub(crate) use impl_dialect;
