//! Markdown tables of the result.

use std::time::Duration;

use crate::closed_loop::{Pace, say};

/// The head of a table.
pub(super) fn head(title: &str, columns: &[&str]) {
    say(format!("\n### {title}\n"));
    row(columns);
    let line: Vec<&str> = columns.iter().map(|_| "--:").collect();
    row(&line);
}

pub(super) fn row(cells: &[impl AsRef<str>]) {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    say(format!("| {} |", cells.join(" | ")));
}

/// `12,345/s (1.23/4.56)`: pace, and the latencies in milliseconds.
pub(super) fn cell(pace: &Pace) -> String {
    format!("{}/s ({}/{})", thousands(pace.per_second), millis(pace.p50), millis(pace.p99))
}

/// Hundredths as `1.23`.
pub(super) fn hundredths(number: u128) -> String {
    format!("{}.{:02}", number / 100, number % 100)
}

/// `of` per `per`, with two digits.
pub(super) fn per(of: u64, per: u64) -> String {
    hundredths(u128::from(of) * 100 / u128::from(per.max(1)))
}

pub(super) fn thousands(number: u128) -> String {
    match number / 1000 {
        0 => number.to_string(),
        high => format!("{},{:03}", thousands(high), number % 1000),
    }
}

fn millis(duration: Duration) -> String {
    hundredths(duration.as_micros() / 10)
}

/// The median by pace.
pub(super) fn median(mut paces: Vec<Pace>) -> Pace {
    paces.sort_unstable_by_key(|pace| pace.per_second);
    paces.get(paces.len() / 2).copied().unwrap_or(Pace {
        calls: 0,
        per_second: 0,
        p50: Duration::ZERO,
        p99: Duration::ZERO,
    })
}

/// The median of the ratios of two sides, round by round, in hundredths.
pub(super) fn ratio(ours: &[Pace], baseline: &[Pace]) -> String {
    let mut ratios: Vec<u128> = ours
        .iter()
        .zip(baseline)
        .map(|(ours, baseline)| ours.per_second * 100 / baseline.per_second.max(1))
        .collect();
    ratios.sort_unstable();
    hundredths(ratios.get(ratios.len() / 2).copied().unwrap_or_default())
}
