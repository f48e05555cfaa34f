//! PostgreSQL: against the same statements in a commit each, against raw commits, and on a slow disk.

use std::sync::Arc;

use probity_saga::store::WorkerId;
use probity_saga::{Orchestrator, PostgresStore};
use sqlx::postgres::{PgPool, PgPoolOptions};
use testkit::{Postgres, TestDatabase};
use tokio::sync::Semaphore;

use super::counted::{Count, Counted};
use super::table::{cell, head, median, per, ratio, row};
use super::work::{DONE, REFUSED, run, saga};
use super::{LEVELS, direct, warm};
use crate::closed_loop::{Pace, Rounds, pace};

/// Eight stores with four calls at a time each are the baseline's pool of 32: a store has more connections than that.
const BASELINE_STORES: u64 = 8;
const CALLS_EACH: usize = 4;

/// One database with everything that is measured on it.
pub(super) struct Bench {
    pub(super) pool: PgPool,
    pub(super) orchestrator: Orchestrator,
    count: Arc<Count>,
    baseline: Vec<(PostgresStore, Arc<Semaphore>)>,
    owner: WorkerId,
    _database: TestDatabase,
}

impl Bench {
    #[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
    pub(super) async fn on(server: &Postgres) -> Self {
        let database = server.database();
        let pool =
            PgPoolOptions::new().max_connections(32).connect(database.url()).await.expect("open PostgreSQL");
        sqlx::query("CREATE TABLE raw_records (id text PRIMARY KEY, saga text)")
            .execute(&pool)
            .await
            .expect("create");
        let mut baseline = Vec::new();
        for _ in 0..BASELINE_STORES {
            let store = PostgresStore::new(pool.clone()).await.expect("migrate");
            baseline.push((store, Arc::new(Semaphore::new(CALLS_EACH))));
        }
        let count = Arc::new(Count::default());
        let store = PostgresStore::new(pool.clone()).await.expect("migrate");
        let owner = direct::living_owner(&store).await;
        let counted = Counted { store, count: Arc::clone(&count) };
        let orchestrator = Orchestrator::new(counted).register(saga()).start().await.expect("start");
        Self { pool, orchestrator, count, baseline, owner, _database: database }
    }

    async fn ours(&self, tasks: u64, rounds: Rounds, input: u64) -> Pace {
        let orchestrator = self.orchestrator.clone();
        let call = move |_, _| {
            let orchestrator = orchestrator.clone();
            async move { run(&orchestrator, input).await }
        };
        pace(tasks, rounds.each, call).await
    }

    async fn direct(&self, tasks: u64, rounds: Rounds) -> Pace {
        let (stores, owner) = (self.baseline.clone(), self.owner);
        let call = move |task: u64, _| {
            let at = usize::try_from(task % BASELINE_STORES).unwrap_or_default();
            let (store, turns) = stores[at].clone();
            async move { direct::write(&store, &turns, owner).await }
        };
        pace(tasks, rounds.each, call).await
    }

    #[expect(clippy::expect_used, reason = "as above")]
    async fn raw(&self, tasks: u64, rounds: Rounds) -> Pace {
        let pool = self.pool.clone();
        let call = move |_, _| {
            let pool = pool.clone();
            async move {
                for _ in 0..3 {
                    sqlx::query("INSERT INTO raw_records VALUES ($1, 'bench')")
                        .bind(super::work::name())
                        .execute(&pool)
                        .await
                        .expect("insert");
                }
            }
        };
        pace(tasks, rounds.each, call).await
    }

    /// Bytes of WAL and flushes of the server so far.
    #[expect(clippy::expect_used, reason = "as above")]
    async fn wal(&self) -> (u64, u64) {
        let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, (SELECT wal_sync FROM pg_stat_wal)";
        let (bytes, syncs): (i64, i64) =
            sqlx::query_as(sql).fetch_one(&self.pool).await.expect("the position");
        (u64::try_from(bytes).unwrap_or_default(), u64::try_from(syncs).unwrap_or_default())
    }

    /// One row of a table: the pace, and what one saga wrote.
    async fn line(&self, tasks: u64, rounds: Rounds, input: u64, compared: bool) {
        warm(self.ours(tasks, rounds.warm_up(), input)).await;
        let (mut ours, mut direct, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut syncs, mut sagas) = (0, 0, 0);
        self.count.take();
        for _ in 0..rounds.number {
            let before = self.wal().await;
            let pace = self.ours(tasks, rounds, input).await;
            let after = self.wal().await;
            (bytes, syncs) = (bytes + after.0 - before.0, syncs + after.1 - before.1);
            sagas += pace.calls;
            ours.push(pace);
            if compared {
                direct.push(self.direct(tasks, rounds).await);
                raw.push(self.raw(tasks, rounds).await);
            }
        }
        let (records, commits) = self.count.take();
        let mut cells = vec![tasks.to_string(), cell(&median(ours.clone()))];
        if compared {
            cells.extend([
                cell(&median(direct.clone())),
                ratio(&ours, &direct),
                cell(&median(raw.clone())),
                ratio(&ours, &raw),
            ]);
        }
        cells.extend([
            per(records, sagas),
            per(commits, sagas),
            per(syncs, sagas),
            (bytes / sagas.max(1)).to_string(),
        ]);
        row(&cells);
    }
}

const WRITTEN: [&str; 4] = ["records", "commits", "flushes", "WAL bytes"];

/// All tables of one server.
pub(super) async fn measure(server: &Postgres, rounds: Rounds, disk: &str) {
    let bench = Bench::on(server).await;
    let columns = ["in flight", "ours", "direct", "ratio", "three raw commits", "ratio"];
    head(
        &format!("PostgreSQL, completed, {disk}: sagas/s (p50/p99 ms), and what one saga wrote"),
        &[&columns[..], &WRITTEN[..]].concat(),
    );
    for tasks in LEVELS {
        bench.line(tasks, rounds, DONE, true).await;
    }
    head(
        &format!("PostgreSQL, turned back and compensated, {disk}"),
        &[&columns[..2], &WRITTEN[..]].concat(),
    );
    for tasks in LEVELS {
        bench.line(tasks, rounds, REFUSED, false).await;
    }
    bench.end().await;
}

impl Bench {
    #[expect(clippy::expect_used, reason = "as above")]
    pub(super) async fn end(self) {
        self.orchestrator.drain().await.expect("drain");
        self.pool.close().await;
    }
}
