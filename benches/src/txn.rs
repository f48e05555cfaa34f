//! `probity_txn::on(..).run(..)` against raw BEGIN, UPDATE, COMMIT: the same statement, each task its own row.

use probity_txn::on;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use crate::closed_loop::{Rounds, compare};

const TABLE: &str = "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)";
const ROW: &str = "INSERT INTO accounts VALUES ($1, 0)";
const UPDATE: &str = "UPDATE accounts SET balance = balance + 1 WHERE id = $1";

macro_rules! raw {
    ($pool:expr, $task:expr, $begin:expr) => {{
        let mut tx = $pool.begin_with($begin).await.expect("begin");
        sqlx::query(UPDATE).bind($task).execute(&mut *tx).await.expect("update");
        tx.commit().await.expect("commit");
    }};
}

macro_rules! ours {
    ($pool:expr, $task:expr) => {{
        on(&$pool, "bench")
            .run(async |tx| sqlx::query(UPDATE).bind($task).execute(&mut *tx).await)
            .await
            .expect("commit");
    }};
}

#[expect(clippy::expect_used, reason = "a bench that cannot reach its database has nothing to measure")]
pub(crate) async fn measure(rounds: Rounds) {
    let folder = testkit::temp_dir();
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"));
    let sqlite =
        SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("open SQLite");
    prepare_sqlite(&sqlite).await;
    for tasks in [1, 16] {
        let (raw, own) = (sqlite.clone(), sqlite.clone());
        compare(
            "txn, one update, SQLite",
            tasks,
            rounds,
            move |task, _| {
                let pool = raw.clone();
                async move { raw!(pool, signed(task), "BEGIN IMMEDIATE") }
            },
            move |task, _| {
                let pool = own.clone();
                async move { ours!(pool, signed(task)) }
            },
        )
        .await;
    }

    let database = testkit::Postgres::shared().database();
    let postgres =
        PgPoolOptions::new().max_connections(32).connect(database.url()).await.expect("open PostgreSQL");
    prepare_postgres(&postgres).await;
    for tasks in [1, 16, 64] {
        let (raw, own) = (postgres.clone(), postgres.clone());
        compare(
            "txn, one update, PostgreSQL",
            tasks,
            rounds,
            move |task, _| {
                let pool = raw.clone();
                async move { raw!(pool, signed(task), "BEGIN") }
            },
            move |task, _| {
                let pool = own.clone();
                async move { ours!(pool, signed(task)) }
            },
        )
        .await;
    }
    sqlite.close().await;
    postgres.close().await;
}

fn signed(task: u64) -> i64 {
    i64::try_from(task).unwrap_or(i64::MAX)
}

#[expect(clippy::expect_used, reason = "as above")]
async fn prepare_sqlite(pool: &SqlitePool) {
    sqlx::query(TABLE).execute(pool).await.expect("create");
    for id in 0..64_i64 {
        sqlx::query(ROW).bind(id).execute(pool).await.expect("insert");
    }
}

#[expect(clippy::expect_used, reason = "as above")]
async fn prepare_postgres(pool: &PgPool) {
    sqlx::query(TABLE).execute(pool).await.expect("create");
    for id in 0..64_i64 {
        sqlx::query(ROW).bind(id).execute(pool).await.expect("insert");
    }
}
