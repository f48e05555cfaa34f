//! Opening the embedded database and applying a schema to it.

use std::path::Path;

use service_shell::{Id, Schema, Settings, StartError, database, sql_ago, sql_now};

const SCHEMA: Schema = Schema {
    service: "test",
    sqlite: &["CREATE TABLE a (id TEXT PRIMARY KEY, at TEXT)", "CREATE TABLE b (id TEXT REFERENCES a)"],
    postgres: &[],
};

fn settings(folder: &Path) -> Settings {
    let folder = folder.to_str().unwrap();
    Settings::from_vars("test", 0, [("DATA_DIR", folder)]).unwrap()
}

#[tokio::test]
async fn the_folder_is_created_and_a_commit_is_on_disk_when_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let pool = database::open(&settings(&folder.path().join("not/yet/there"))).await.unwrap();
    let pragma = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&pool).await.unwrap();
    assert_eq!(mode, "wal");
    assert_eq!(pragma("PRAGMA synchronous").await, 2, "FULL");
    assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
    assert_eq!(pragma("PRAGMA busy_timeout").await, 5000);
}

#[tokio::test]
async fn a_schema_applied_by_many_at_once_is_applied_once() {
    let folder = tempfile::tempdir().unwrap();
    let pool = database::open(&settings(folder.path())).await.unwrap();
    let one = || async { SCHEMA.apply(&pool).await };
    let (a, b, c, d) = tokio::join!(one(), one(), one(), one());
    for applied in [a, b, c, d] {
        applied.unwrap();
    }
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM service_schema").fetch_one(&pool).await.unwrap();
    assert_eq!(version, 2);
}

#[tokio::test]
async fn a_schema_of_a_newer_build_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let pool = database::open(&settings(folder.path())).await.unwrap();
    SCHEMA.apply(&pool).await.unwrap();
    let older = Schema { sqlite: &["CREATE TABLE a (id TEXT)"], ..SCHEMA };
    let refused = older.apply(&pool).await.expect_err("newer");
    assert!(matches!(refused, StartError::SchemaTooNew { found: 2, known: 1, .. }), "{refused}");
    let version: i64 =
        sqlx::query_scalar("SELECT version FROM service_schema").fetch_one(&pool).await.unwrap();
    assert_eq!(version, 2);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let refused = database::open(&settings(&file.join("below"))).await.expect_err("not a folder").to_string();
    assert!(refused.contains("a-file") && refused.contains("DATA_DIR"), "{refused}");
}

#[tokio::test]
async fn ids_are_readable_text_and_the_words_for_time_are_sql() {
    let folder = tempfile::tempdir().unwrap();
    let pool = database::open(&settings(folder.path())).await.unwrap();
    SCHEMA.apply(&pool).await.unwrap();
    let id = Id::new();
    sqlx::query(concat!("INSERT INTO a (id, at) VALUES ($1, ", sql_now!(), ")"))
        .bind(id)
        .execute(&pool)
        .await
        .unwrap();
    let (text, typed): (String, Id) =
        sqlx::query_as(concat!("SELECT id, id FROM a WHERE at > ", sql_ago!(60)))
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((text, typed), (id.to_string(), id));
    let at: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("SELECT at FROM a").fetch_one(&pool).await.unwrap();
    assert!(at.timestamp() > 1_700_000_000);
}
