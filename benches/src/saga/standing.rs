//! Sagas that stand: ten thousand whose worker died, and those that wait for tomorrow.

use std::time::Duration;

use probity_saga::store::{Inserted, NewSaga, SagaStore, Verdict, WorkerId};
use probity_saga::{ListFilter, Orchestrator, PostgresStore, Status};
use sqlx::postgres::PgPool;
use testkit::Postgres;
use tokio::time::Instant;

use super::direct::{done, new_saga};
use super::postgres::Bench;
use super::table::{head, row, thousands};
use super::work::{PARKED, name, saga};

/// The time until a new worker has finished what a dead one left after its first step.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn recovery(server: &Postgres, sagas: u64) {
    let database = server.database();
    let pool = PgPool::connect(database.url()).await.expect("open PostgreSQL");
    let store = PostgresStore::new(pool.clone()).await.expect("migrate");
    let dead = WorkerId::generate();
    let left: Vec<NewSaga> = (0..sagas).map(|_| new_saga(dead)).collect();
    for batch in left.chunks(256) {
        let inserted = store.insert(batch).await.expect("inserts");
        assert!(inserted.iter().all(|answer| *answer == Inserted::Created));
        let records: Vec<_> = batch.iter().map(|new| done(new.id, 1)).collect();
        let verdicts = store.apply(&records).await.expect("results");
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied(_))));
    }
    let began = Instant::now();
    let orchestrator = Orchestrator::new(store).register(saga()).start().await.expect("start");
    let open = "SELECT count(*) FROM saga_instances WHERE status <> 'completed'";
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&pool).await.expect("a count") > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = began.elapsed();
    head("Recovery on PostgreSQL", &["interrupted after the first of two steps", "finished after"]);
    row(&[thousands(sagas.into()), format!("{} ms", took.as_millis())]);
    orchestrator.drain().await.expect("drain");
    pool.close().await;
}

/// Measures the cost, to this process, of a saga that waits a day for its next try.
#[expect(clippy::expect_used, reason = "as above")]
pub(super) async fn parked(server: &Postgres, sagas: u64) {
    let bench = Bench::on(server).await;
    // The first ones pay for caches and pools.
    park(&bench.orchestrator, sagas).await;
    let before = resident();
    park(&bench.orchestrator, sagas).await;
    let after = resident();
    let filter = ListFilter { status: Some(Status::Compensating), limit: u32::MAX, ..ListFilter::default() };
    let waiting = bench.orchestrator.list(&filter).await.expect("a list").len();
    let beats = "SELECT count(*) FROM saga_workers";
    let beating: i64 = sqlx::query_scalar(beats).fetch_one(&bench.pool).await.expect("a count");
    head("Parked for a day", &["sagas", "resident bytes per saga", "workers that beat"]);
    row(&[
        thousands(waiting as u128),
        (after.saturating_sub(before) / sagas.max(1)).to_string(),
        // One of the two belongs to the baseline.
        (beating - 1).to_string(),
    ]);
    bench.end().await;
}

#[expect(clippy::expect_used, reason = "as above")]
async fn park(orchestrator: &Orchestrator, sagas: u64) {
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..sagas {
        let orchestrator = orchestrator.clone();
        starting.spawn(async move {
            let _started = orchestrator.start("bench", &name(), &PARKED).await.expect("a start");
        });
    }
    while starting.join_next().await.is_some() {}
    // Only the worker knows which it still drives, and it shows them.
    while !format!("{orchestrator:?}").contains("driving: 0") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Resident memory of this process in bytes; 0 where there is no `/proc`.
fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * PAGE
}
