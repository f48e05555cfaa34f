//! The rows of the SQL stores, as statements that insert them.

use std::collections::HashMap;
use std::sync::Arc;

use probity_saga::store::SagaStore;
use probity_saga::{PostgresStore, SqliteStore};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};

use super::payments::{fill, go_on};
use super::v1;

/// Columns that the database's clock fills.
const TIMES: [&str; 12] = [
    "created_at",
    "run_at",
    "updated_at",
    "completed_at",
    "compensated_at",
    "next_retry_at",
    "executed_at",
    "heartbeat_at",
    "expires_at",
    "started_at",
    "seen_at",
    "at",
];

/// Replaces what differs from run to run: times, process ids, and the digits of UUIDs.
struct Masks {
    /// The expression for a time, of the database.
    now: &'static str,
    ids: HashMap<String, String>,
}

impl Masks {
    fn of(now: &'static str) -> Self {
        Self { now, ids: HashMap::new() }
    }

    fn mask(&mut self, column: &str, value: String) -> String {
        match column {
            _ if value == "NULL" => value,
            "pid" => "4242".to_owned(),
            _ if TIMES.contains(&column) => {
                // '2026-11-30 22:10:01.123', and behind it what PostgreSQL says of the zone.
                let marks: String =
                    [5, 8, 11, 14, 17].iter().map(|at| value.as_bytes()[*at] as char).collect();
                assert_eq!(marks, "-- ::", "{column} = {value} is a time as text");
                self.now.to_owned()
            }
            _ => self.mask_ids(&value),
        }
    }

    /// Gives each UUID the next small number.
    fn mask_ids(&mut self, value: &str) -> String {
        let mut masked = String::new();
        let mut rest = value;
        while let Some(at) = (0..rest.len()).find(|at| rest.get(*at..*at + 36).is_some_and(is_uuid)) {
            let next = self.ids.len() + 1;
            let id = self.ids.entry(rest[at..at + 36].to_owned());
            masked += &rest[..at];
            masked += id.or_insert_with(|| format!("00000000-0000-7000-8000-{next:012}"));
            rest = &rest[at + 36..];
        }
        masked + rest
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    })
}

/// Writes the rows of a database as a script. The id of an audit row is the database's own counter.
macro_rules! script {
    ($pool:expr, $now:literal, $columns:literal, $quoted:literal, $tables:expr) => {{
        let (mut masks, mut script) = (Masks::of($now), String::new());
        for (table, from) in $tables {
            let columns: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(format!($columns, table))).fetch_all($pool).await.unwrap();
            let columns: Vec<String> = columns
                .into_iter()
                .filter(|column| (table, column.as_str()) != ("saga_audit", "id"))
                .collect();
            let mut values = Vec::new();
            for column in &columns {
                let quoted = format!($quoted, column);
                let select = format!("SELECT {quoted} FROM {from}");
                let column: Vec<String> =
                    sqlx::query_scalar(AssertSqlSafe(select)).fetch_all($pool).await.unwrap();
                values.push(column);
            }
            for row in 0..values[0].len() {
                script += &format!("INSERT INTO {table} ({})\nVALUES (\n", columns.join(", "));
                for (at, column) in columns.iter().enumerate() {
                    let comma = if at + 1 < columns.len() { "," } else { "" };
                    let value = masks.mask(column, values[at][row].clone());
                    script += &format!("    {value}{comma} -- {column}\n");
                }
                script += ");\n";
            }
        }
        script
    }};
}

async fn sqlite() -> (testkit::TempDir, SqlitePool, Arc<dyn SagaStore>) {
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new().filename(folder.path().join("saga.db")).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool.clone()).await.unwrap();
    (folder, pool, Arc::new(store))
}

#[tokio::test]
async fn rows_of_sqlite_are_written_and_read_as_in_version_1() {
    let (_folder, pool, store) = sqlite().await;
    let workers = fill(&store).await;
    let script = script!(
        &pool,
        "strftime('%Y-%m-%d %H:%M:%f', 'now')",
        "SELECT name FROM pragma_table_info('{}') ORDER BY cid",
        "quote(t.{})",
        [
            ("saga_heads", "saga_heads t ORDER BY t.business_id"),
            (
                "saga_steps",
                "saga_steps t JOIN saga_heads h ON h.id = t.saga_id ORDER BY h.business_id, t.step_order"
            ),
            ("saga_definitions", "saga_definitions t ORDER BY t.fingerprint"),
            ("saga_audit", "saga_audit t ORDER BY t.id"),
            ("saga_workers", "saga_workers t ORDER BY t.worker_id"),
        ]
    );
    drop(workers);
    let stored = testkit::golden(v1!("rows_sqlite.sql"), &script);

    let (_folder, pool, store) = sqlite().await;
    sqlx::raw_sql(AssertSqlSafe(stored)).execute(&pool).await.unwrap();
    go_on(&store).await;
}

async fn postgres() -> (testkit::TestDatabase, PgPool, Arc<dyn SagaStore>) {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect(database.url()).await.unwrap();
    let store = PostgresStore::new(pool.clone()).await.unwrap();
    (database, pool, Arc::new(store))
}

#[tokio::test]
async fn rows_of_postgresql_are_written_and_read_as_in_version_1() {
    let (_database, pool, store) = postgres().await;
    let workers = fill(&store).await;
    let script = script!(
        &pool,
        "clock_timestamp()",
        "SELECT attname::text FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 \
         AND NOT attisdropped ORDER BY attnum",
        "quote_nullable(t.{}::text)",
        [
            ("saga_heads", "saga_heads t ORDER BY t.business_id"),
            (
                "saga_step_rows",
                "saga_step_rows t JOIN saga_heads h ON h.id = t.saga_id ORDER BY h.business_id, t.step_order"
            ),
            ("saga_definitions", "saga_definitions t ORDER BY t.fingerprint"),
            ("saga_audit", "saga_audit t ORDER BY t.id"),
            ("saga_workers", "saga_workers t ORDER BY t.worker_id"),
        ]
    );
    drop(workers);
    let stored = testkit::golden(v1!("rows_postgres.sql"), &script);

    let (_database, pool, store) = postgres().await;
    sqlx::raw_sql(AssertSqlSafe(stored)).execute(&pool).await.unwrap();
    go_on(&store).await;
}
