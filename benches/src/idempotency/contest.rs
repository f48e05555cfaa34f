//! Contenders that take turns, so that what disturbs the machine disturbs all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::closed_loop::{Pace, Rounds, pace, say};

type Calling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A competitor that makes the same calls in another way.
#[derive(Clone)]
pub(super) struct Contender {
    name: &'static str,
    call: Arc<dyn Fn(u64, u64) -> Calling + Send + Sync>,
}

impl Contender {
    pub(super) fn new<C, F>(name: &'static str, call: C) -> Self
    where
        C: Fn(u64, u64) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self { name, call: Arc::new(move |task, number| Box::pin(call(task, number))) }
    }
}

/// Starts a table of contests.
pub(super) fn table(title: &str) {
    say(format!("\n### {title}\n"));
    say("| case | tasks | who | calls/s | p50 ms | p99 ms | of the first |");
    say("|---|--:|---|--:|--:|--:|--:|");
}

/// Lets the contenders take turns for as many rounds as asked for, and prints a row for each: medians of the rounds,
/// and the median of its share of what the first one did in the same round.
pub(super) async fn contest(case: &str, tasks: u64, rounds: Rounds, contenders: &[Contender]) {
    let mut paces: Vec<Vec<Pace>> = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds.number {
        for (contender, paces) in contenders.iter().zip(&mut paces) {
            let call = Arc::clone(&contender.call);
            paces.push(pace(tasks, rounds.each, move |task, number| call(task, number)).await);
        }
    }
    let Some(first) = paces.first() else { return };
    for (contender, own) in contenders.iter().zip(&paces) {
        let shares = own.iter().zip(first).map(|(own, first)| own.per_second * 100 / first.per_second.max(1));
        let share = median(shares.collect());
        say(format!(
            "| {case} | {tasks} | {} | {} | {} | {} | {}.{:02} |",
            contender.name,
            median(own.iter().map(|pace| pace.per_second).collect()),
            millis(median(own.iter().map(|pace| pace.p50).collect())),
            millis(median(own.iter().map(|pace| pace.p99).collect())),
            share / 100,
            share % 100,
        ));
    }
}

/// Milliseconds with three digits after the point.
fn millis(time: Duration) -> String {
    format!("{}.{:03}", time.as_millis(), time.as_micros() % 1000)
}

pub(super) fn median<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
