//! A closed loop: so many tasks, each sends its next call when the last one was answered.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::Instant;

/// The rounds of a measurement and the length of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) number: usize,
    pub(crate) each: Duration,
}

impl Rounds {
    /// Sagas have many tables: fewer and shorter rounds, five minutes in all.
    pub(crate) fn of_sagas(self) -> Self {
        Self { number: self.number.min(3), each: self.each.min(Duration::from_secs(1)) }
    }

    /// A short run that is not counted.
    pub(crate) fn warm_up(self) -> Self {
        Self { number: 1, each: self.each / 4 }
    }

    /// Tells whether the measurement only proves that the bench still runs.
    pub(crate) fn is_quick(self) -> bool {
        self.number == 1
    }
}

/// The result of one side in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) calls: u64,
    pub(crate) per_second: u128,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Runs `call(task, number)` in `tasks` tasks for as long as a round lasts.
pub(crate) async fn pace<C, F>(tasks: u64, each: Duration, call: C) -> Pace
where
    C: Fn(u64, u64) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let start = Arc::new(Barrier::new(usize::try_from(tasks).unwrap_or(usize::MAX)));
    let began = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (call, start) = (call.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let end = Instant::now() + each;
                let mut latencies = Vec::new();
                let mut number = 0;
                while Instant::now() < end {
                    let sent = Instant::now();
                    call(task, number).await;
                    latencies.push(sent.elapsed());
                    number += 1;
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.unwrap_or_default());
    }
    let took = began.elapsed().as_micros().max(1);
    latencies.sort_unstable();
    let at = |percent: usize| {
        latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1)))
    };
    Pace {
        calls: latencies.len() as u64,
        per_second: latencies.len() as u128 * 1_000_000 / took,
        p50: at(50).copied().unwrap_or_default(),
        p99: at(99).copied().unwrap_or_default(),
    }
}

/// One line of the result.
pub(crate) fn say(line: impl std::fmt::Display) {
    // A closed pipe has seen enough.
    drop(writeln!(std::io::stdout(), "{line}"));
}
