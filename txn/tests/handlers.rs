//! Tests the places where a run can be awaited. That this file compiles is the test; it also runs.
#![cfg(feature = "sqlite")]
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use probity_txn::{Backend, Error, Tx, TxFnOnce, on};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

type Refused = Error<sqlx::Error>;

async fn count(tx: &mut Tx<'_, sqlx::Sqlite>, note: &str) -> Result<i64, sqlx::Error> {
    sqlx::query("INSERT INTO notes VALUES (?)").bind(note).execute(&mut *tx).await?;
    sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&mut *tx).await
}

async fn handler(State(pool): State<SqlitePool>, Path(note): Path<String>) -> String {
    let borrowed = note.as_str();
    on(&pool, "handler")
        .run(async |tx| count(tx, borrowed).await)
        .await
        .map_or_else(|error| error.to_string(), |rows| rows.to_string())
}

struct Service {
    pool: SqlitePool,
    prefix: String,
}

trait Notes {
    fn note<'a>(&'a self, text: &'a str) -> impl Future<Output = Result<i64, Refused>> + Send + 'a;
}

impl Notes for Service {
    fn note<'a>(&'a self, text: &'a str) -> impl Future<Output = Result<i64, Refused>> + Send + 'a {
        on(&self.pool, "trait.method").run(async move |tx| {
            count(tx, &self.prefix).await?;
            count(tx, text).await
        })
    }
}

#[async_trait::async_trait]
trait BoxedNotes {
    async fn boxed_note(&self, text: &str) -> Result<i64, Refused>;
}

#[async_trait::async_trait]
impl BoxedNotes for Service {
    async fn boxed_note(&self, text: &str) -> Result<i64, Refused> {
        on(&self.pool, "boxed.method")
            .run(async |tx| {
                count(tx, &self.prefix).await?;
                count(tx, text).await
            })
            .await
    }
}

/// Generic over the database and the closure, and still promising `Send`.
fn audited<'a, DB, F, T>(
    pool: &'a sqlx::Pool<DB>,
    body: F,
) -> impl Future<Output = Result<T, Error<sqlx::Error>>> + Send + 'a
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, sqlx::Error>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, sqlx::Error>, Fut: Send>
        + Clone
        + Send
        + 'a,
    T: Send + 'a,
{
    on(pool, "audited").run(body)
}

async fn pool() -> SqlitePool {
    let options = SqlitePoolOptions::new().max_connections(1);
    let pool = options.connect("sqlite::memory:").await.expect("memory");
    sqlx::query("CREATE TABLE notes (text TEXT)").execute(&pool).await.expect("table");
    pool
}

#[tokio::test]
async fn a_run_with_borrowed_captures_fits_handlers_tasks_and_trait_methods() {
    let pool = pool().await;
    let _router: Router = Router::new().route("/{note}", post(handler)).with_state(pool.clone());

    let service = Arc::new(Service { pool: pool.clone(), prefix: "from".to_owned() });
    let spawned = Arc::clone(&service);
    let text = "task".to_owned();
    let rows = tokio::spawn(async move {
        let first = spawned.note(&text).await?;
        spawned.boxed_note(&text).await.map(|second| (first, second))
    });
    assert_eq!(rows.await.unwrap().unwrap(), (2, 4));

    let local = "generic".to_owned();
    let rows = tokio::spawn(async move { audited(&pool, async |tx| count(tx, &local).await).await });
    assert_eq!(rows.await.unwrap().unwrap(), 5);
}
