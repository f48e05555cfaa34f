//! Several ways to do the same, measured in turns.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::{Instant, timeout_at};

use crate::closed_loop::{Pace, Rounds, say};

/// The call that a task repeats; it answers whether the work was done.
type Call = Arc<dyn Fn(Turn) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Whose turn it is to call.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) task: u64,
    /// The number of earlier calls of the task.
    pub(super) number: u64,
    end: Instant,
}

impl Turn {
    /// Tells whether a call that tries until it succeeds has to stop, between two transactions.
    pub(super) fn is_over(self) -> bool {
        Instant::now() >= self.end
    }
}

struct Side {
    name: &'static str,
    call: Call,
    paces: Vec<Pace>,
    failed: u64,
}

pub(super) struct Contest {
    tasks: u64,
    sides: Vec<Side>,
}

impl Contest {
    pub(super) fn of(tasks: u64) -> Self {
        Self { tasks, sides: Vec::new() }
    }

    /// One more side. All sides pay for the box around their future.
    pub(super) fn side<C, F>(mut self, name: &'static str, call: C) -> Self
    where
        C: Fn(Turn) -> F + Send + Sync + 'static,
        F: Future<Output = bool> + Send + 'static,
    {
        let call: Call = Arc::new(move |turn| Box::pin(call(turn)));
        self.sides.push(Side { name, call, paces: Vec::new(), failed: 0 });
        self
    }

    /// Measures, and prints a line for each `(side, against)`.
    pub(super) async fn hold(mut self, rounds: Rounds, lines: &[(&str, &str)]) {
        let sides = self.sides.len();
        for side in &self.sides {
            // Statements are prepared and connections opened before anybody measures.
            pace(self.tasks, rounds.each / 10, Arc::clone(&side.call)).await;
        }
        for round in 0..rounds.number {
            for turn in 0..sides {
                let side = &mut self.sides[(round + turn) % sides];
                let (measured, failed) = pace(self.tasks, rounds.each, Arc::clone(&side.call)).await;
                side.paces.push(measured);
                side.failed += failed;
            }
        }
        let called = |name: &str| {
            let side = self.sides.iter().find(|side| side.name == name);
            side.unwrap_or_else(|| unreachable!("no side is called {name}"))
        };
        for (side, against) in lines {
            called(side).print(self.tasks, called(against));
        }
        for side in self.sides.iter().filter(|side| side.failed > 0) {
            say(format!("\n{} calls of \"{}\" with {} tasks failed.", side.failed, side.name, self.tasks));
        }
    }
}

impl Side {
    fn print(&self, tasks: u64, against: &Self) {
        let of = |read: fn(&Pace) -> u128| median(self.paces.iter().map(read).collect());
        let ratio = |read: fn(&Pace) -> u128| {
            let ratios = self.paces.iter().zip(&against.paces);
            hundredths(median(ratios.map(|(own, base)| read(own) * 100 / read(base).max(1)).collect()))
        };
        let (p50, p99) = (|pace: &Pace| pace.p50.as_micros(), |pace: &Pace| pace.p99.as_micros());
        let speed = |pace: &Pace| pace.per_second;
        say(format!(
            "| {tasks} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            of(speed),
            hundredths(of(p50) / 10),
            hundredths(of(p99) / 10),
            if self.name == against.name { "" } else { against.name },
            ratio(speed),
            ratio(p50),
            ratio(p99),
        ));
    }
}

/// The head of a table of contests.
pub(super) fn head(title: &str) {
    say(format!("\n### {title}\n"));
    say("| tasks | side | per second | p50 ms | p99 ms | against | throughput | p50 | p99 |");
    say("|--:|---|--:|--:|--:|---|--:|--:|--:|");
}

/// The time that the last call of a task may take beyond the end of the round; that call is not counted.
const GRACE: Duration = Duration::from_secs(60);

/// Runs the call in so many tasks until the time is over; how many of the calls in time failed is the second.
///
/// Each task ends its last call: one that is cut between a BEGIN and a COMMIT by hand would give a connection back
/// to its pool that is inside a transaction, and the next borrower would fail.
#[expect(clippy::expect_used, reason = "with a caller less there is nothing to compare")]
async fn pace(tasks: u64, each: Duration, call: Call) -> (Pace, u64) {
    let start = Arc::new(Barrier::new(usize::try_from(tasks).unwrap_or(usize::MAX)));
    let end = Instant::now() + each;
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (call, start) = (Arc::clone(&call), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let (mut latencies, mut failed) = (Vec::new(), 0);
                let mut turn = Turn { task, number: 0, end };
                while !turn.is_over() {
                    let sent = Instant::now();
                    let done = call(turn).await;
                    match (turn.is_over(), done) {
                        (true, _) => {}
                        (false, true) => latencies.push(sent.elapsed()),
                        (false, false) => failed += 1,
                    }
                    turn.number += 1;
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for worker in workers {
        let ended = timeout_at(end + GRACE, worker).await.expect("each caller ends its last call");
        let (own, undone) = ended.expect("no caller panics");
        latencies.extend(own);
        failed += undone;
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).or(latencies.last());
    let pace = Pace {
        calls: latencies.len() as u64,
        per_second: latencies.len() as u128 * 1_000_000 / each.as_micros().max(1),
        p50: at(50).copied().unwrap_or_default(),
        p99: at(99).copied().unwrap_or_default(),
    };
    (pace, failed)
}

fn median(mut numbers: Vec<u128>) -> u128 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn hundredths(number: u128) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}
