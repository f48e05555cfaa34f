//! `probity_idempotency::execute` with a new key per call: memory alone, SQL against the raw INSERT and UPDATE that a
//! claim and its completion cannot do without; then replays of one key.

use std::sync::Arc;

use probity_idempotency::{
    Execution, Fingerprint, HashKey, IdempotencyKey, IdempotencyManager, Lease, MemoryStore, Policy,
    PostgresStore, Scope, SqliteStore, execute,
};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;

use crate::closed_loop::{Rounds, alone, compare};

const TABLE: &str = "CREATE TABLE raw_keys (id TEXT PRIMARY KEY, answer TEXT)";
const CLAIM: &str = "INSERT INTO raw_keys (id) VALUES ($1)";
const COMPLETE: &str = "UPDATE raw_keys SET answer = $2 WHERE id = $1";
const ANSWER: &str = "a receipt of some forty bytes, as is usual";

/// The raw INSERT and UPDATE against claim and completion: a macro, because a pool names its database.
macro_rules! new_keys {
    ($name:literal, $tasks:expr, $rounds:expr, $pool:expr, $manager:expr) => {{
        let (raw, manager) = ($pool.clone(), Arc::clone(&$manager));
        let baseline = move |_, _| {
            let pool = raw.clone();
            async move {
                let key = fresh();
                sqlx::query(CLAIM).bind(&key).execute(&pool).await.expect("claim");
                sqlx::query(COMPLETE).bind(&key).bind(ANSWER).execute(&pool).await.expect("complete");
            }
        };
        let call = move |_, _| {
            let manager = Arc::clone(&manager);
            async move { once(&manager, fresh()).await }
        };
        compare($name, $tasks, $rounds, baseline, call).await;
    }};
}

/// Runs work that does nothing under a key of its own.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
async fn once(manager: &Arc<dyn IdempotencyManager>, key: String) {
    let scope = Scope::new("bench").expect("a valid scope");
    let key = IdempotencyKey::new(key).expect("a valid key");
    let request = Fingerprint::of(&HashKey::default(), &[b"bench"]);
    let work = async |_lease: Lease| Ok::<_, std::io::Error>(ANSWER.to_owned());
    match execute(manager, &scope, &key, request, &Policy::default(), work).await.expect("an answer") {
        Execution::Fresh(_) | Execution::Replayed(_) => {}
        other => unreachable!("nobody else uses the key: {other:?}"),
    }
}

/// A key that no round before used.
fn fresh() -> String {
    uuid::Uuid::now_v7().to_string()
}

pub(crate) async fn measure(rounds: Rounds) {
    on_memory(rounds).await;
    on_sqlite(rounds).await;
    on_postgres(rounds).await;
}

async fn on_memory(rounds: Rounds) {
    let memory: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
    for tasks in [1, 16] {
        let manager = Arc::clone(&memory);
        let call = move |_, _| {
            let manager = Arc::clone(&manager);
            async move { once(&manager, fresh()).await }
        };
        alone("idempotency, new keys, memory", tasks, rounds, call).await;
    }
}

#[expect(clippy::expect_used, reason = "as above")]
async fn on_sqlite(rounds: Rounds) {
    let folder = testkit::temp_dir();
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"));
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("open SQLite");
    sqlx::query(TABLE).execute(&pool).await.expect("create");
    let manager: Arc<dyn IdempotencyManager> =
        Arc::new(SqliteStore::new(pool.clone()).await.expect("migrate"));
    for tasks in [1, 16] {
        new_keys!("idempotency, new keys, SQLite", tasks, rounds, pool, manager);
    }
    pool.close().await;
}

#[expect(clippy::expect_used, reason = "as above")]
async fn on_postgres(rounds: Rounds) {
    let database = testkit::Postgres::shared().database();
    let pool =
        PgPoolOptions::new().max_connections(32).connect(database.url()).await.expect("open PostgreSQL");
    sqlx::query(TABLE).execute(&pool).await.expect("create");
    let manager: Arc<dyn IdempotencyManager> =
        Arc::new(PostgresStore::new(pool.clone()).await.expect("migrate"));
    for tasks in [1, 16, 64] {
        new_keys!("idempotency, new keys, PostgreSQL", tasks, rounds, pool, manager);
    }
    sqlx::query(CLAIM).bind("one-key").execute(&pool).await.expect("claim");
    for tasks in [1, 64] {
        let (raw, manager) = (pool.clone(), Arc::clone(&manager));
        let baseline = move |_, _| {
            let pool = raw.clone();
            async move {
                let _: Option<String> =
                    sqlx::query_scalar("SELECT answer FROM raw_keys WHERE id = 'one-key'")
                        .fetch_one(&pool)
                        .await
                        .expect("select");
            }
        };
        let call = move |_, _| {
            let manager = Arc::clone(&manager);
            async move { once(&manager, "one-key".to_owned()).await }
        };
        compare("idempotency, replays of one key, PostgreSQL", tasks, rounds, baseline, call).await;
    }
    pool.close().await;
}
