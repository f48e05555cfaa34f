//! `probity_txn::on(..).run(..)` against raw sqlx: the same statements, pool and isolation, in the same run.
//!
//! All sides of a contest take turns within each round, in an order that moves on from round to round, and the ratios
//! are taken per round before the median: noise of the machine hits every side. The result is Markdown.

use std::process::Command;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::closed_loop::{Rounds, say};

mod contest;
mod hot_rows;
mod one_update;

/// Connections of every pool here, as in many services.
const CONNECTIONS: u32 = 32;

/// The parts that can be measured one at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    OneUpdate,
    Sqlite,
    HotRows,
}

impl Part {
    pub(crate) const ALL: &[Self] = &[Self::OneUpdate, Self::Sqlite, Self::HotRows];
}

pub(crate) async fn measure(parts: &[Part], rounds: Rounds) {
    let rounds = Rounds { number: rounds.number, each: rounds.each / 2 };
    let database = testkit::Postgres::shared().database();
    let pool = connect(database.url()).await;
    environment(&pool, rounds).await;
    if parts.contains(&Part::OneUpdate) {
        one_update::on_postgres(&pool, rounds).await;
    }
    if parts.contains(&Part::Sqlite) {
        one_update::on_sqlite(rounds).await;
    }
    if parts.contains(&Part::HotRows) {
        // Deadlocks cost a second each: a round must be longer than that to show more than one.
        let rounds = Rounds { number: rounds.number.min(3), each: rounds.each * 3 };
        hot_rows::measure(database.url(), rounds).await;
    }
    pool.close().await;
}

#[expect(clippy::expect_used, reason = "a bench that cannot reach its database has nothing to measure")]
async fn connect(url: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(60))
        .connect(url)
        .await
        .expect("open PostgreSQL")
}

/// The machine and the versions, because numbers without them mean nothing.
async fn environment(pool: &PgPool, rounds: Rounds) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let server: String = sqlx::query_scalar("SHOW server_version").fetch_one(pool).await.unwrap_or_default();
    let rustc =
        Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    say("## probity-txn against raw sqlx\n");
    say(format!(
        "* machine: {cores} cores, {}; client and server share them",
        model.trim_matches([' ', '\t', ':'])
    ));
    say(format!("* PostgreSQL {server} over loopback TCP, fsync and synchronous_commit on"));
    say(format!(
        "* {}; sqlx {}, tokio {}",
        String::from_utf8_lossy(&rustc).trim(),
        locked("sqlx"),
        locked("tokio")
    ));
    say(format!("* {} rounds of {:?}; pools of {CONNECTIONS} connections", rounds.number, rounds.each));
}

/// The version of a dependency that this was built with.
fn locked(name: &str) -> &'static str {
    const LOCK: &str = include_str!("../../Cargo.lock");
    let start = format!("name = \"{name}\"\nversion = \"");
    let version = LOCK.split_once(&start).and_then(|(_, rest)| rest.split('"').next());
    version.unwrap_or("unknown")
}
