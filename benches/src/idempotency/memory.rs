//! Memory: what a claim and its completion cost, in nanoseconds, on one thread and on two.

use std::sync::Arc;

use probity_idempotency::MemoryStore;
use tokio::time::Instant;

use super::calls::{Manager, RETENTION, fresh, recording};
use super::contest::median;
use crate::closed_loop::{Rounds, say};

const CALLS: u32 = 100_000;

pub(super) async fn measure(rounds: Rounds) {
    say("\n### Memory, begin and complete of a new key\n");
    say("| threads | ns per key and thread | keys/s together |");
    say("|--:|--:|--:|");
    let calls = if rounds.number == 1 { CALLS / 100 } else { CALLS };
    for threads in [1_u32, 2] {
        let mut each = Vec::new();
        for _ in 0..rounds.number {
            let manager: Manager = Arc::new(MemoryStore::new());
            let workers: Vec<_> =
                (0..threads).map(|_| tokio::spawn(run(Arc::clone(&manager), calls))).collect();
            let mut slowest = 0;
            for worker in workers {
                slowest = slowest.max(worker.await.unwrap_or_default());
            }
            each.push(slowest);
        }
        let nanos = median(each).max(1);
        say(format!("| {threads} | {nanos} | {} |", u128::from(threads) * 1_000_000_000 / nanos));
    }
}

/// Nanoseconds per key. Tokens are drawn before: that is the operating system's time.
#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
async fn run(manager: Manager, calls: u32) -> u128 {
    let claims: Vec<_> = (0..calls).map(|_| fresh()).collect();
    let kept = recording();
    let began = Instant::now();
    for claim in &claims {
        let _ = manager.begin(claim).await.expect("an answer");
        let _ = manager.complete(&claim.holder(), &kept, RETENTION).await.expect("an answer");
    }
    began.elapsed().as_nanos() / u128::from(calls)
}
