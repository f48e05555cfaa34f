//! The rows of the SQL stores, as statements that insert them.

use std::sync::Arc;

use probity_idempotency::{IdempotencyManager, PostgresStore, SqliteStore};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};

use super::payments::{KEYS, TOKEN, fill, record, retry};
use super::{hex, v1};

/// The store's clock while the rows are written, in microseconds; they are read a second later.
const WRITTEN_AT: &str = "1700000000000000";
const READ_AT: &str = "1700000001000000";
/// Fences come from the clock or a sequence of the database. Only their order matters.
const FENCE: &str = "1700000000000000";

macro_rules! rows {
    ($pool:expr, $columns:literal, $quoted:literal, $bytes:literal) => {{
        let columns: Vec<String> = sqlx::query_scalar($columns).fetch_all($pool).await.unwrap();
        let mut script = String::new();
        for key in KEYS {
            script +=
                &format!("-- {key}\nINSERT INTO idempotency_records ({})\nVALUES (\n", columns.join(", "));
            for (at, column) in columns.iter().enumerate() {
                let (quoted, id) =
                    (format!($quoted, column), format!($bytes, hex = hex(record(key).as_bytes())));
                let select = format!("SELECT {quoted} FROM idempotency_records WHERE id = {id}");
                let value: String = sqlx::query_scalar(AssertSqlSafe(select)).fetch_one($pool).await.unwrap();
                let value = match column.as_str() {
                    "token" => format!($bytes, hex = hex(TOKEN)),
                    "fence" => FENCE.to_owned(),
                    _ => value,
                };
                let comma = if at + 1 < columns.len() { "," } else { "" };
                script += &format!("    {value}{comma} -- {column}\n");
            }
            script += ");\n";
        }
        script
    }};
}

async fn sqlite(clock: &str) -> (SqlitePool, Arc<dyn IdempotencyManager>) {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    let store = SqliteStore::builder(pool.clone()).clock(clock).build().await.unwrap();
    (pool, Arc::new(store))
}

// proves: I-2
#[tokio::test]
async fn rows_of_sqlite_are_written_and_read_as_in_version_1() {
    let (pool, store) = sqlite(WRITTEN_AT).await;
    fill(&store).await;
    let script = rows!(
        &pool,
        "SELECT name FROM pragma_table_info('idempotency_records') ORDER BY cid",
        "quote({})",
        "X'{hex}'"
    );
    let stored = testkit::golden(v1!("rows_sqlite.sql"), &script);

    let (pool, store) = sqlite(READ_AT).await;
    sqlx::raw_sql(AssertSqlSafe(stored)).execute(&pool).await.unwrap();
    retry(&store).await;
}

async fn postgres(clock: &str) -> (testkit::TestDatabase, PgPool, Arc<dyn IdempotencyManager>) {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(4).connect(database.url()).await.unwrap();
    let store = PostgresStore::builder(pool.clone()).clock(clock).build().await.unwrap();
    (database, pool, Arc::new(store))
}

// proves: I-2
#[tokio::test]
async fn rows_of_postgresql_are_written_and_read_as_in_version_1() {
    let (_database, pool, store) = postgres(WRITTEN_AT).await;
    fill(&store).await;
    let script = rows!(
        &pool,
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'idempotency_records'::regclass AND attnum > 0 \
         AND NOT attisdropped ORDER BY attnum",
        "quote_nullable({}::text)",
        "'\\x{hex}'"
    );
    let stored = testkit::golden(v1!("rows_postgres.sql"), &script);

    let (_database, pool, store) = postgres(READ_AT).await;
    sqlx::raw_sql(AssertSqlSafe(stored)).execute(&pool).await.unwrap();
    retry(&store).await;
}
