//! The differences between databases: the statements, the migration lock, and how errors are read.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use super::SqlStore;
use super::names::{Names, Set};
use crate::error::{ErrorKind, Failure, StoreError};

/// A database this crate knows: `sqlx::Sqlite` and `sqlx::Postgres`. Sealed.
pub trait Dialect: driver::Driver {}

impl<DB: driver::Driver> Dialect for DB {}

/// A statement on its way in the caller's transaction.
pub(crate) type Running<'e, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'e>>;

/// The part of a dialect that is private to this crate.
pub(crate) mod driver {
    use std::future::Future;

    use sqlx::{Database, Executor, Pool};

    use super::{Running, SqlStore, Value};
    use crate::core::machine::Entry;
    use crate::error::Failure;
    use crate::error::StoreError;
    use crate::store::sql::names::{Names, Set, Sql};

    pub trait Driver: Database {
        /// The store that a builder makes.
        type Store;

        /// A connection can lose an answer, so that one which still owes an answer is not worth keeping.
        const REMOTE: bool;

        /// The statements with these names.
        fn set(names: &Names) -> Set;

        /// The SQL that makes the tables of this version.
        fn ddl(names: &Names) -> String;

        /// Classifies an error of the driver.
        fn classify(error: sqlx::Error) -> Failure;

        /// Tells whether the session that answered this will serve no claim any more.
        fn spends_the_session(error: &StoreError) -> bool;

        /// Looks whether the database can keep records, and where; creates or upgrades the tables under a lock if it
        /// must and may. Says the names by which the tables are found from now on.
        fn prepare(
            pool: &Pool<Self>,
            names: Names,
            may_create: bool,
        ) -> impl Future<Output = Result<Names, StoreError>> + Send;

        /// Makes the store of one that sends each call as a statement of its own.
        fn store(direct: SqlStore<Self>) -> Self::Store;

        /// Runs a command without parameters or answer.
        fn command(
            on: &mut Self::Connection,
            command: &'static str,
        ) -> impl Future<Output = Result<(), StoreError>> + Send;

        /// Runs a guarded write and says how many rows it touched. Boxed, because a handler that awaits an opaque
        /// future over a borrowed executor cannot be proven `Send` (rust-lang/rust#100013).
        fn execute<'e, 'c: 'e, E: Executor<'c, Database = Self> + 'e>(
            on: E,
            sql: Sql,
            values: &[Value<'_>],
        ) -> Running<'e, u64>;

        /// Runs a statement that returns a record, and the database's time.
        fn returning<'e, 'c: 'e, E: Executor<'c, Database = Self> + 'e>(
            on: E,
            sql: Sql,
            values: &[Value<'_>],
        ) -> Running<'e, Option<(Entry, u64)>>;

        /// A guarded write on a connection of the store's own.
        fn touch(
            on: &mut Self::Connection,
            sql: Sql,
            values: &[Value<'_>],
        ) -> impl Future<Output = Result<u64, StoreError>> + Send;

        /// Runs a guarded write that returns integers from the row it touched.
        fn integers<const N: usize>(
            on: &mut Self::Connection,
            sql: Sql,
            values: &[Value<'_>],
        ) -> impl Future<Output = Result<Option<[u64; N]>, StoreError>> + Send;

        /// Reads a record, and the database's time.
        fn read(
            on: &mut Self::Connection,
            sql: Sql,
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

/// Classifies an error of the driver's own: the database did not say it.
pub(crate) fn of_the_driver(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            Failure::refused(ErrorKind::Unavailable, error)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
            Failure::in_doubt(ErrorKind::Corrupt, error)
        }
        _ => Failure::in_doubt(ErrorKind::Unavailable, error),
    }
}

/// The statements for `names`. They are made once in a process and kept for its life: a service has one set or two.
pub(crate) fn set_of<DB: Dialect>(names: &Names) -> &'static Set {
    static MADE: Mutex<Vec<(Names, &'static Set)>> = Mutex::new(Vec::new());
    // A vector is whole between any two statements here, so a panic of another thread leaves it consistent.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, set)) = made.iter().find(|(known, set)| known == names && set.database == DB::NAME) {
        return set;
    }
    let set: &'static Set = Box::leak(Box::new(DB::set(names)));
    made.push((names.clone(), set));
    set
}

/// Implements [`Dialect`]'s statements for one database: generic code over two drivers would need a page of bounds,
/// and none of it could be read.
macro_rules! impl_dialect {
    ($database:ty, $stored:ty, $remote:literal, $set:path, $ddl:path, $prepare:path, $store:path) => {
        impl $crate::store::sql::dialect::driver::Driver for $database {
            type Store = $stored;

            const REMOTE: bool = $remote;

            fn set(names: &$crate::store::sql::names::Names) -> $crate::store::sql::names::Set {
                $set(names)
            }

            fn ddl(names: &$crate::store::sql::names::Names) -> String {
                $ddl(names)
            }

            fn classify(error: sqlx::Error) -> $crate::error::Failure {
                classify(error)
            }

            fn spends_the_session(error: &StoreError) -> bool {
                spends_the_session(error)
            }

            async fn prepare(
                pool: &sqlx::Pool<Self>,
                names: $crate::store::sql::names::Names,
                may_create: bool,
            ) -> Result<$crate::store::sql::names::Names, StoreError> {
                $prepare(pool, names, may_create).await
            }

            fn store(direct: $crate::store::sql::SqlStore<Self>) -> Self::Store {
                $store(direct)
            }

            async fn command(on: &mut Self::Connection, command: &'static str) -> Result<(), StoreError> {
                sqlx::raw_sql(command).execute(on).await.map_err(classify)?;
                Ok(())
            }

            fn execute<'e, 'c: 'e, E: sqlx::Executor<'c, Database = Self> + 'e>(
                on: E,
                sql: $crate::store::sql::names::Sql,
                values: &[Value<'_>],
            ) -> $crate::store::sql::dialect::Running<'e, u64> {
                let running = on.execute(bind(sql, values));
                Box::pin(async move { Ok(running.await.map_err(classify)?.rows_affected()) })
            }

            fn returning<'e, 'c: 'e, E: sqlx::Executor<'c, Database = Self> + 'e>(
                on: E,
                sql: $crate::store::sql::names::Sql,
                values: &[Value<'_>],
            ) -> $crate::store::sql::dialect::Running<'e, Option<(Entry, u64)>> {
                // To the end, as in `integers`: the executor may be in no transaction.
                let running = on.fetch_all(bind(sql, values));
                Box::pin(async move {
                    let rows = running.await.map_err(classify)?;
                    rows.first().map(|row| decode(row)?.into_entry()).transpose()
                })
            }

            async fn touch(
                on: &mut Self::Connection,
                sql: $crate::store::sql::names::Sql,
                values: &[Value<'_>],
            ) -> Result<u64, StoreError> {
                Self::execute(on, sql, values).await
            }

            async fn integers<const N: usize>(
                on: &mut Self::Connection,
                sql: $crate::store::sql::names::Sql,
                values: &[Value<'_>],
            ) -> Result<Option<[u64; N]>, StoreError> {
                // To the end: SQLite gives the row before it commits, and the driver drops what comes after the first
                // row that it is asked for, such as the error of the commit.
                let rows = bind(sql, values).fetch_all(on).await.map_err(classify)?;
                let Some(row) = rows.first() else { return Ok(None) };
                let mut integers = [0; N];
                for (index, integer) in integers.iter_mut().enumerate() {
                    let value: i64 = sqlx::Row::try_get(row, index).map_err(classify)?;
                    *integer = u64::try_from(value).unwrap_or(0);
                }
                Ok(Some(integers))
            }

            async fn read(
                on: &mut Self::Connection,
                sql: $crate::store::sql::names::Sql,
                record: &[u8],
            ) -> Result<Option<(Entry, u64)>, StoreError> {
                let reading = bind(sql, &[Value::Bytes(record)]).fetch_optional(on);
                let row = reading.await.map_err(|error| classify(error).nothing_written())?;
                let entry = row.map(|row| decode(&row)?.into_entry()).transpose();
                entry.map_err(StoreError::nothing_written)
            }
        }
    };
}
pub(crate) use impl_dialect;

/// Implements binding of values and decoding of records for one database.
macro_rules! impl_rows {
    ($database:ty) => {
        pub(crate) fn bind<'q>(
            sql: $crate::store::sql::names::Sql,
            values: &[Value<'_>],
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments> {
            let query = sqlx::query(sql.text).persistent(sql.persistent);
            values.iter().fold(query, |query, value| match *value {
                Value::Int(integer) => query.bind(i64::try_from(integer).unwrap_or(i64::MAX)),
                Value::Bytes(bytes) => query.bind(bytes),
                Value::Text(text) => query.bind(text),
                Value::MaybeBytes(bytes) => query.bind(bytes),
            })
        }

        pub(crate) fn decode(row: &<$database as sqlx::Database>::Row) -> Result<StoredRow, StoreError> {
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
pub(crate) use impl_rows;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Effect;

    // proves: I-5
    #[test]
    fn a_row_that_cannot_be_decoded_may_be_that_of_a_write() {
        for error in [sqlx::Error::ColumnNotFound("fence".into()), sqlx::Error::Decode("no number".into())] {
            let error = StoreError::from(of_the_driver(error));
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::Unknown));
            assert_eq!(error.nothing_written().effect(), Effect::NotApplied);
        }
        let refused = StoreError::from(of_the_driver(sqlx::Error::PoolTimedOut));
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        let crashed = StoreError::from(of_the_driver(sqlx::Error::WorkerCrashed));
        assert_eq!((crashed.kind(), crashed.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    }
}
