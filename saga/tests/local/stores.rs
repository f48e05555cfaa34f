//! Databases with a store and a table of effects.

use std::time::Duration;

use probity_saga::{PostgresStore, SqliteStore};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{PgPool, raw_sql};

const EFFECTS: &str = "CREATE TABLE IF NOT EXISTS effects (saga TEXT NOT NULL, step TEXT NOT NULL)";

pub(crate) async fn sqlite_in(folder: &std::path::Path) -> SqlitePool {
    testkit::time_limit();
    let options = SqliteConnectOptions::new()
        .filename(folder.join("saga.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    raw_sql(EFFECTS).execute(&pool).await.unwrap();
    pool
}

pub(crate) async fn sqlite() -> (SqlitePool, SqliteStore, impl Sized) {
    let folder = testkit::temp_dir();
    let pool = sqlite_in(folder.path()).await;
    (pool.clone(), SqliteStore::new(pool).await.unwrap(), folder)
}

pub(crate) async fn postgres_at(url: &str) -> PgPool {
    testkit::time_limit();
    let pool = PgPool::connect(url).await.unwrap();
    raw_sql(EFFECTS).execute(&pool).await.unwrap();
    pool
}

pub(crate) async fn postgres() -> (PgPool, PostgresStore, testkit::TestDatabase) {
    let database = testkit::Postgres::shared().database();
    let pool = postgres_at(database.url()).await;
    (pool.clone(), PostgresStore::new(pool).await.unwrap(), database)
}
