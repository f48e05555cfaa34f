//! Memory: what a claim and its completion cost, in nanoseconds, on one thread and on two.

use std::sync::Arc;

use probity_idempotency::{IdempotencyManager, MemoryStore};
use tokio::time::Instant;

use super::calls::{BODY, Manager, RETENTION, fresh, recording};
use super::contest::median;
use crate::closed_loop::{Rounds, say};

const CALLS: u32 = 100_000;

pub(super) async fn measure(rounds: Rounds) {
    // Before anything else has left memory to use again.
    let bytes = size(CALLS).await;
    say("\n### Memory, begin and complete of a new key\n");
    say("| threads | stores | ns per key and thread | keys/s together |");
    say("|--:|--:|--:|--:|");
    let calls = if rounds.number == 1 { CALLS / 100 } else { CALLS };
    // Two threads with a store each share nothing: what they lose against one thread is the machine's.
    for (threads, stores) in [(1_u32, 1_u32), (2, 1), (2, 2)] {
        let mut each = Vec::new();
        for _ in 0..rounds.number {
            let managers: Vec<Manager> =
                (0..stores).map(|_| Arc::new(MemoryStore::new()) as Manager).collect();
            let workers: Vec<_> = (0..threads)
                .zip(managers.iter().cycle())
                .map(|(_, manager)| tokio::spawn(run(Arc::clone(manager), calls)))
                .collect();
            let mut slowest = 0;
            for worker in workers {
                slowest = slowest.max(worker.await.unwrap_or_default());
            }
            each.push(slowest);
        }
        let nanos = median(each).max(1);
        say(format!("| {threads} | {stores} | {nanos} | {} |", u128::from(threads) * 1_000_000_000 / nanos));
    }
    say(format!("\nBytes per finished record in memory, with a body of {}: {bytes}", BODY.len()));
}

/// Measures the bytes by which the process grows per record.
#[expect(clippy::expect_used, reason = "as below")]
async fn size(calls: u32) -> u64 {
    let store = MemoryStore::new();
    let before = resident();
    for _ in 0..calls {
        let claim = fresh();
        let _ = store.claim(&claim).await.expect("an answer");
        let _ = store.complete(&claim.holder(), &recording(), RETENTION).await.expect("an answer");
    }
    resident().saturating_sub(before) / u64::from(calls)
}

/// The bytes of this process in memory, as Linux counts them; 0 elsewhere.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

/// Nanoseconds per key. Claims and what is recorded are made before: drawing a token is the operating system's time.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn run(manager: Manager, calls: u32) -> u128 {
    let claims: Vec<_> = (0..calls).map(|_| fresh()).collect();
    let kept = recording();
    let began = Instant::now();
    for claim in &claims {
        let _ = manager.claim(claim).await.expect("an answer");
        let _ = manager.complete(&claim.holder(), &kept, RETENTION).await.expect("an answer");
    }
    began.elapsed().as_nanos() / u128::from(calls)
}
