//! Measurements as ratios against the raw driver doing the minimum, in the same run.
//!
//! ```text
//! cargo run --release -p benches -- all          every bench of the crates, five rounds of two seconds
//! cargo run --release -p benches -- payments     POST /payments through five services, which it builds first
//! cargo run --release -p benches -- txn --quick  one short round: proves that the bench still runs
//! ```
//!
//! Baseline and ours take turns, and the ratio of each round is taken before the median, because a shared machine
//! changes its speed between rounds more than within one. Results with machine and date: `docs/BENCHMARKS.md`.
#![forbid(unsafe_code)]

mod closed_loop;
mod idempotency;
mod payments;
mod saga;
mod txn;

use std::process::ExitCode;
use std::time::Duration;

use closed_loop::Rounds;

const USAGE: &str = "usage: benches [all|txn [one-update|sqlite|hot-rows]|idempotency|payments|\
    saga [memory|sqlite|postgres|standing|slow-disk]...] [--quick]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = if quick {
        Rounds { number: 1, each: Duration::from_millis(100) }
    } else {
        Rounds { number: 5, each: Duration::from_secs(2) }
    };
    let chosen: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| *argument != "--quick").collect();
    match chosen.as_slice() {
        ["txn"] => txn::measure(txn::Part::ALL, rounds).await,
        ["txn", "one-update"] => txn::measure(&[txn::Part::OneUpdate], rounds).await,
        ["txn", "sqlite"] => txn::measure(&[txn::Part::Sqlite], rounds).await,
        ["txn", "hot-rows"] => txn::measure(&[txn::Part::HotRows], rounds).await,
        ["idempotency"] => idempotency::measure(rounds).await,
        ["payments"] => payments::measure(rounds).await,
        ["saga", parts @ ..] => saga::measure(rounds, parts).await,
        [] | ["all"] => {
            txn::measure(txn::Part::ALL, rounds).await;
            idempotency::measure(rounds).await;
            saga::measure(rounds, &[]).await;
        }
        _ => {
            closed_loop::say(USAGE);
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
