//! `POST /payments`, the whole path: five services as processes, each with its own database, on SQLite and on PostgreSQL
//! with Redis. It builds them first.
//!
//! A closed loop of 64 connections finds the pace. An open loop sends half of it: a payment is due at its time whether or
//! not the ones before were answered, so a service that stalls is charged for everything that waited. The shares come from
//! the `/metrics` of the services.

#![expect(
    clippy::expect_used,
    clippy::float_arithmetic,
    reason = "a bench that cannot reach its services has nothing to measure; seconds are read as the services write them"
)]

mod metrics;
mod platform;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::closed_loop::{Rounds, pace, say};
use platform::{Platform, Stores};

/// The connections of the client.
const CONNECTIONS: u64 = 64;

/// Prints Markdown tables.
pub(crate) async fn measure(rounds: Rounds) {
    say(format!(
        "## POST /payments\n\n{} cores, shared by five services, their databases and the load; {CONNECTIONS} connections.",
        std::thread::available_parallelism().map_or(0, usize::from)
    ));
    let stores: &[Stores] =
        if rounds.is_quick() { &[Stores::Sqlite] } else { &[Stores::Sqlite, Stores::PostgresAndRedis] };
    for stores in stores {
        let platform = Platform::start(*stores, rounds.is_quick()).await;
        let pay = {
            let merchant = platform.merchant().await;
            move || {
                let merchant = merchant.clone();
                async move { merchant.pay().await }
            }
        };
        let call = pay.clone();
        let closed = move |_, _| call();
        pace(CONNECTIONS, rounds.each / 4, closed.clone()).await;
        let before = platform.metrics().await;
        let fastest = pace(CONNECTIONS, rounds.each * 2, closed).await;
        let full = platform.metrics().await;
        let rate = u32::try_from(fastest.per_second / 2).unwrap_or(u32::MAX).max(1);
        let half = open_loop(rate, rounds.each * 4, pay).await;
        let after = platform.metrics().await;
        say(format!(
            "\n### {stores}\n\n| load | payments/s | p50 ms | p99 ms |\n|---|--:|--:|--:|\n\
             | as fast as it goes | {} | {} | {} |\n| half of that, open loop | {rate} | {} | {} |",
            fastest.per_second,
            milliseconds(fastest.p50),
            milliseconds(fastest.p99),
            milliseconds(half.0),
            milliseconds(half.1),
        ));
        say("\n| time of a payment, ms on average | as fast as it goes | at half of that |\n|---|--:|--:|");
        for part in metrics::PARTS {
            say(format!(
                "| {} | {} | {} |",
                part.name,
                milliseconds(part.per_payment(&before, &full)),
                milliseconds(part.per_payment(&full, &after))
            ));
        }
    }
}

/// Sends `rate` calls a second, and tells the median and the 99th percentile of their times, from when each was due.
async fn open_loop<F>(rate: u32, long: Duration, call: impl Fn() -> F) -> (Duration, Duration)
where
    F: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(usize::try_from(CONNECTIONS).unwrap_or(64)));
    let (began, mut running, mut latencies) = (Instant::now(), JoinSet::new(), Vec::new());
    let between = Duration::from_secs(1) / rate;
    for number in 0.. {
        let due = began + between * number;
        if due > began + long {
            break;
        }
        sleep_until(due).await;
        let (connections, call) = (Arc::clone(&connections), call());
        running.spawn(async move {
            let _connection = connections.acquire_owned().await;
            call.await;
            due.elapsed()
        });
        while let Some(ended) = running.try_join_next() {
            latencies.extend(ended);
        }
    }
    while let Some(ended) = running.join_next().await {
        latencies.extend(ended);
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
