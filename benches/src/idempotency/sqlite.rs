//! SQLite: one INSERT and one UPDATE a key, each a commit of its own, against the store.

use std::sync::Arc;

use probity_idempotency::SqliteStore;
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

use super::calls::{BODY, Manager, completed, first_run, fresh, replay};
use super::contest::{Contender, contest, table};
use crate::closed_loop::{Rounds, say};

const TABLE: &str = "CREATE TABLE raw_keys (id BLOB PRIMARY KEY, answer TEXT) WITHOUT ROWID";
const CLAIM: &str = "INSERT INTO raw_keys (id) VALUES ($1)";
const COMPLETE: &str = "UPDATE raw_keys SET answer = $2 WHERE id = $1";
const READ: &str = "SELECT answer FROM raw_keys WHERE id = $1";

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn measure(rounds: Rounds) {
    let folder = testkit::temp_dir();
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"));
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("open SQLite");
    sqlx::query(TABLE).execute(&pool).await.expect("create");
    let manager: Manager = Arc::new(SqliteStore::new(pool.clone()).await.expect("migrate"));
    table("SQLite, WAL, synchronous FULL, pool of 8");
    for tasks in [1, 16, 64, 256] {
        let ours = Arc::clone(&manager);
        let contenders = [raw_first_run(pool.clone()), Contender::new("store", move |_, _| first_run(&ours))];
        contest("first run", tasks, rounds, &contenders).await;
    }
    let key = completed(&manager).await;
    sqlx::query(CLAIM).bind(key.record.as_bytes().to_vec()).execute(&pool).await.expect("claim");
    for tasks in [1, 16, 64, 256] {
        let ours = Arc::clone(&manager);
        let contenders = [
            raw_replay(pool.clone(), key.record.as_bytes().to_vec()),
            Contender::new("store", move |_, _| replay(&ours, key)),
        ];
        contest("replay of one key", tasks, rounds, &contenders).await;
    }
    let before = size(&pool).await;
    for _ in 0..1000 {
        first_run(&manager).await;
    }
    let each = (size(&pool).await - before) / 1000;
    say(format!("\nBytes per finished record in SQLite, table and indexes: {each}"));
    pool.close().await;
}

#[expect(clippy::expect_used, reason = "as above")]
fn raw_first_run(pool: SqlitePool) -> Contender {
    Contender::new("raw INSERT and UPDATE", move |_, _| {
        let pool = pool.clone();
        async move {
            let id = fresh().record.as_bytes().to_vec();
            sqlx::query(CLAIM).bind(&id).execute(&pool).await.expect("claim");
            sqlx::query(COMPLETE).bind(&id).bind(BODY).execute(&pool).await.expect("complete");
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
fn raw_replay(pool: SqlitePool, id: Vec<u8>) -> Contender {
    Contender::new("raw SELECT", move |_, _| {
        let (pool, id) = (pool.clone(), id.clone());
        async move {
            let _: Option<String> = sqlx::query_scalar(READ).bind(id).fetch_one(&pool).await.expect("select");
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
async fn size(pool: &SqlitePool) -> i64 {
    sqlx::query_scalar("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        .fetch_one(pool)
        .await
        .expect("a size")
}
