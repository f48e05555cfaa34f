//! The stores without a server: memory, and SQLite against the same statements in a commit each.

use std::sync::Arc;
use std::time::Duration;

use probity_saga::{MemoryStore, Orchestrator, SqliteStore};
use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::Semaphore;

use super::counted::{Count, Counted};
use super::table::{cell, head, hundredths, median, per, ratio, row};
use super::work::{DONE, REFUSED, run, saga};
use super::{LEVELS, direct, warm};
use crate::closed_loop::{Pace, Rounds, pace};

async fn ours(orchestrator: &Orchestrator, tasks: u64, rounds: Rounds, input: u64) -> Pace {
    let orchestrator = orchestrator.clone();
    let call = move |_, _| {
        let orchestrator = orchestrator.clone();
        async move { run(&orchestrator, input).await }
    };
    pace(tasks, rounds.each, call).await
}

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn memory(rounds: Rounds) {
    let columns = ["in flight", "completed", "CPU µs per saga", "compensated", "CPU µs per saga"];
    head("Memory: sagas/s (p50/p99 ms)", &columns);
    for tasks in LEVELS {
        let mut cells = vec![tasks.to_string()];
        for input in [DONE, REFUSED] {
            let mut rows = Vec::new();
            let (mut spent, mut sagas) = (Duration::ZERO, 0);
            for _ in 0..rounds.number {
                // A new store, because this one keeps everything.
                let builder = Orchestrator::new(MemoryStore::new()).register(saga());
                let orchestrator = builder.start().await.expect("start on memory");
                warm(ours(&orchestrator, tasks, rounds.warm_up(), input)).await;
                let before = cpu_time();
                let pace = ours(&orchestrator, tasks, rounds, input).await;
                (spent, sagas) = (spent + (cpu_time() - before), sagas + pace.calls);
                rows.push(pace);
                orchestrator.drain().await.expect("drain");
            }
            let each = spent.as_nanos() / u128::from(sagas.max(1));
            cells.extend([cell(&median(rows)), hundredths(each / 10)]);
        }
        row(&cells);
    }
}

/// The processor time of this process so far, bench and store included; zero where there is no `/proc`.
fn cpu_time() -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may contain spaces.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<u32>().ok());
    TICK * ticks.sum::<u32>()
}

#[expect(clippy::expect_used, reason = "as above")]
pub(super) async fn sqlite(rounds: Rounds) {
    let folder = testkit::temp_dir();
    let options = probity_txn::sqlite::options(folder.path().join("bench.sqlite3"));
    let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("open SQLite");
    let store = SqliteStore::new(pool.clone()).await.expect("migrate");
    let (baseline, count) = (store.clone(), Arc::new(Count::default()));
    let counted = Counted { store, count: Arc::clone(&count) };
    let orchestrator = Orchestrator::new(counted).register(saga()).start().await.expect("start on SQLite");
    let owner = direct::living_owner(&baseline).await;
    let columns =
        ["in flight", "ours", "one commit per record", "ratio", "records", "commits", "compensated"];
    head("SQLite (WAL, FULL): sagas/s (p50/p99 ms), and what one saga wrote", &columns);
    for tasks in LEVELS {
        let (mut own, mut direct, mut undone) = (Vec::new(), Vec::new(), Vec::new());
        let (mut records, mut commits, mut sagas) = (0, 0, 0);
        warm(ours(&orchestrator, tasks, rounds.warm_up(), DONE)).await;
        for _ in 0..rounds.number {
            count.take();
            let pace_of_ours = ours(&orchestrator, tasks, rounds, DONE).await;
            let (more, flushed) = count.take();
            (records, commits, sagas) = (records + more, commits + flushed, sagas + pace_of_ours.calls);
            own.push(pace_of_ours);
            // The store has one connection that writes.
            let (store, turns) = (baseline.clone(), Arc::new(Semaphore::new(1)));
            let call = move |_, _| {
                let (store, turns) = (store.clone(), Arc::clone(&turns));
                async move { direct::write(&store, &turns, owner).await }
            };
            direct.push(pace(tasks, rounds.each, call).await);
            undone.push(ours(&orchestrator, tasks, rounds, REFUSED).await);
        }
        row(&[
            tasks.to_string(),
            cell(&median(own.clone())),
            cell(&median(direct.clone())),
            ratio(&own, &direct),
            per(records, sagas),
            per(commits, sagas),
            cell(&median(undone)),
        ]);
    }
    orchestrator.drain().await.expect("drain");
    pool.close().await;
}
