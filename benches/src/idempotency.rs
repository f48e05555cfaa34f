//! Idempotency: the memory store and the layer by themselves, each other store against the raw commands that a first run
//! and a replay cannot do without.
//!
//! `PROBITY_BENCH_ONLY=redis` (or `memory`, `layer`, `postgres`, `sqlite`) measures one part.

mod calls;
mod contest;
mod layer;
mod memory;
mod postgres;
mod redis;
mod sqlite;

use crate::closed_loop::{Rounds, say};

/// Prints Markdown tables. Each cell is short, because there are many: a fifth of the usual round.
pub(crate) async fn measure(rounds: Rounds) {
    let rounds = Rounds { each: rounds.each / 5, ..rounds };
    say(format!(
        "## probity-idempotency\n\n{} cores; everything below shares them with the load. {}; {}. Medians of {} rounds of {} ms; \
         contenders take turns.",
        std::thread::available_parallelism().map_or(0, usize::from),
        version(&["postgres", "/usr/lib/postgresql/15/bin/postgres"]),
        version(&["redis-server"]),
        rounds.number,
        rounds.each.as_millis(),
    ));
    let only = std::env::var("PROBITY_BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("memory") {
        memory::measure(rounds).await;
    }
    if wanted("layer") {
        layer::measure(rounds).await;
    }
    if wanted("redis") {
        redis::measure(rounds).await;
    }
    if wanted("postgres") {
        postgres::measure(rounds).await;
    }
    if wanted("sqlite") {
        sqlite::measure(rounds).await;
    }
}

/// The version that the first program that can be found prints.
fn version(programs: &[&str]) -> String {
    let ask = |program: &&str| std::process::Command::new(program).arg("--version").output().ok();
    programs.iter().find_map(ask).map_or_else(
        || "an unknown version".to_owned(),
        |answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned(),
    )
}
