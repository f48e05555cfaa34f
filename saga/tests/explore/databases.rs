//! A saga cut at every store call and every effect, on the databases themselves.
#![cfg(all(feature = "testing", feature = "sqlite", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use probity_saga::store::SagaStore;
use probity_saga::testing::{Report, explore_on};
use probity_saga::{BuildError, PostgresStore, Saga, SqliteStore};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

undoable!(Reserve);
undoable!(Freeze);
undoable!(Charge);

fn saga() -> Result<Saga, BuildError> {
    Saga::named("payment").step(Reserve).step(Freeze).step(Charge).build()
}

async fn explored(store: impl SagaStore) -> Report {
    let report = explore_on(Arc::new(store), 1_u32, saga).await.unwrap();
    // Two store calls for the start and two for each of three results, two points for each effect.
    assert!(report.schedules > 3 * 14, "{report:?}");
    assert!(report.completed > 0 && report.compensated > 0, "{report:?}");
    assert_eq!(report.waiting, 0, "{report:?}");
    report
}

// proves: S-1, S-2, S-3, S-4, S-5, S-6, S-7
#[tokio::test]
async fn a_three_step_saga_keeps_its_promises_under_every_cut_on_sqlite() {
    let folder = testkit::temp_dir();
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("sagas.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let _report = explored(SqliteStore::new(pool).await.unwrap()).await;
}

// proves: S-1, S-2, S-3, S-4, S-5, S-6, S-7
#[tokio::test]
async fn a_three_step_saga_keeps_its_promises_under_every_cut_on_postgres() {
    let database = testkit::Postgres::shared().database();
    let pool = PgPool::connect(database.url()).await.unwrap();
    let _report = explored(PostgresStore::new(pool).await.unwrap()).await;
}
