//! A saga of two steps that do nothing, started and awaited, on every store. The baseline writes the same three
//! records by the same statements, each in a commit of its own; beside it stand three raw single-row commits. What a
//! saga wrote is counted at the store, and by PostgreSQL itself.

mod counted;
mod direct;
mod local;
mod postgres;
mod standing;
mod table;
mod work;

use testkit::Postgres;

use crate::closed_loop::{Pace, Rounds, say};

/// Sagas in flight.
const LEVELS: [u64; 5] = [1, 16, 64, 256, 1024];

/// Enough memory and WAL that the server does not write checkpoints all the time.
const SERVER: [&str; 3] = ["shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=30min"];

/// Every flush waits 3 ms first, as a networked disk would.
const SLOW_DISK: [&str; 2] = ["commit_delay=3000", "commit_siblings=0"];

/// The parts that can be measured one at a time.
const PARTS: [&str; 5] = ["memory", "sqlite", "postgres", "standing", "slow-disk"];

/// The parts named in `chosen`, all of them if none is.
pub(crate) async fn measure(rounds: Rounds, chosen: &[&str]) {
    let rounds = rounds.of_sagas();
    let chosen = if chosen.is_empty() { &PARTS[..] } else { chosen };
    let standing = if rounds.is_quick() { 200 } else { 10_000 };
    for part in chosen {
        match *part {
            "memory" => local::memory(rounds).await,
            "sqlite" => local::sqlite(rounds).await,
            "postgres" => postgres::measure(&Postgres::start_with(&SERVER), rounds, "this disk").await,
            "standing" => {
                let server = Postgres::start_with(&SERVER);
                standing::recovery(&server, standing).await;
                standing::parked(&server, standing / 2).await;
            }
            "slow-disk" => {
                let server = Postgres::start_with(&[&SERVER[..], &SLOW_DISK[..]].concat());
                postgres::measure(&server, rounds, "3 ms per flush").await;
            }
            other => say(format!("{other} is not one of {}", PARTS.join(", "))),
        }
    }
}

/// Fills caches, pools and prepared statements; the pace does not count.
async fn warm(pace: impl Future<Output = Pace>) {
    let _: Pace = pace.await;
}
