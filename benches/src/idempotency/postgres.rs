//! PostgreSQL: one INSERT and one UPDATE a key, each a commit of its own, against the store that sends each call as a
//! statement of its own, and the one whose calls share statements.

use std::sync::Arc;

use probity_idempotency::PostgresStore;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::calls::{BODY, Manager, completed, first_run, fresh, replay};
use super::contest::{Contender, contest, table};
use crate::closed_loop::{Rounds, say};

const TABLE: &str = "CREATE TABLE raw_keys (id BYTEA PRIMARY KEY, answer TEXT)";
const CLAIM: &str = "INSERT INTO raw_keys (id) VALUES ($1)";
const COMPLETE: &str = "UPDATE raw_keys SET answer = $2 WHERE id = $1";
const READ: &str = "SELECT answer FROM raw_keys WHERE id = $1";

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn measure(rounds: Rounds) {
    let database = testkit::Postgres::shared().database();
    let pool =
        PgPoolOptions::new().max_connections(32).connect(database.url()).await.expect("open PostgreSQL");
    sqlx::query(TABLE).execute(&pool).await.expect("create");
    let store = PostgresStore::new(pool.clone()).await.expect("migrate");
    let direct: Manager = Arc::new(store.clone().direct());
    let shared: Manager = Arc::new(store);
    table("PostgreSQL, pool of 32");
    for tasks in [1, 16, 64, 256] {
        let (one, two) = (Arc::clone(&direct), Arc::clone(&shared));
        let contenders = [
            raw_first_run(pool.clone()),
            Contender::new("direct", move |_, _| first_run(&one)),
            Contender::new("shared", move |_, _| first_run(&two)),
        ];
        contest("first run", tasks, rounds, &contenders).await;
    }
    let key = completed(&direct).await;
    sqlx::query(CLAIM).bind(&key.record.as_bytes()[..]).execute(&pool).await.expect("claim");
    for tasks in [1, 16, 64, 256] {
        let (one, two) = (Arc::clone(&direct), Arc::clone(&shared));
        let contenders = [
            raw_replay(pool.clone(), key.record.as_bytes().to_vec()),
            Contender::new("direct", move |_, _| replay(&one, key)),
            Contender::new("shared", move |_, _| replay(&two, key)),
        ];
        contest("replay of one key", tasks, rounds, &contenders).await;
    }
    let before = size(&pool).await;
    for _ in 0..1000 {
        first_run(&shared).await;
    }
    say(format!(
        "\nBytes per finished record in PostgreSQL, table and indexes: {}",
        (size(&pool).await - before) / 1000
    ));
    pool.close().await;
}

#[expect(clippy::expect_used, reason = "as above")]
fn raw_first_run(pool: PgPool) -> Contender {
    Contender::new("raw INSERT and UPDATE", move |_, _| {
        let pool = pool.clone();
        async move {
            let key = fresh();
            let id = &key.record.as_bytes()[..];
            sqlx::query(CLAIM).bind(id).execute(&pool).await.expect("claim");
            sqlx::query(COMPLETE).bind(id).bind(BODY).execute(&pool).await.expect("complete");
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
fn raw_replay(pool: PgPool, id: Vec<u8>) -> Contender {
    Contender::new("raw SELECT", move |_, _| {
        let (pool, id) = (pool.clone(), id.clone());
        async move {
            let _: Option<String> = sqlx::query_scalar(READ).bind(id).fetch_one(&pool).await.expect("select");
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
async fn size(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT pg_total_relation_size('idempotency_records')")
        .fetch_one(pool)
        .await
        .expect("a size")
}
