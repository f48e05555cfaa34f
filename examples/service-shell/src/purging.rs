//! One task of each service forgets what is old: records of requests, finished sagas, and whatever else it names.
//!
//! Invariant: each batch is a statement or a transaction of its own, so a purge never holds up a request for long, and one
//! that was interrupted has done what it has done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::BoxFuture;
use metrics::counter;
use probity_idempotency::IdempotencyManager;
use tokio::time::{MissedTickBehavior, interval};

use crate::{Drain, Settings, milliseconds};

/// The settings of the task.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Purging")]
pub(crate) struct PurgingArguments {
    /// The milliseconds between two purges of old rows.
    #[arg(long = "purge-every-ms", env = "PURGE_EVERY_MS", default_value = "60000", value_parser = milliseconds)]
    purge_every: Duration,
    /// The number of rows that one statement of a purge forgets at most.
    #[arg(long, env = "PURGE_BATCH", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    purge_batch: u32,
    /// The milliseconds for which finished sagas are kept [default: 30 days].
    #[arg(long = "saga-keep-ms", env = "SAGA_KEEP_MS", default_value = "2592000000", hide_default_value = true, value_parser = milliseconds)]
    saga_keep: Duration,
}

type Purge = Box<dyn Fn(u32) -> BoxFuture<'static, Result<u64, String>> + Send + Sync>;

/// The old rows that a service forgets.
#[must_use = "start it"]
pub struct Purging {
    service: &'static str,
    arguments: PurgingArguments,
    work: Vec<(&'static str, Purge)>,
}

impl Purging {
    /// Forgets nothing yet.
    pub fn of(settings: &Settings) -> Purging {
        Purging { service: settings.name, arguments: settings.purging, work: Vec::new() }
    }

    /// Forgets records of requests whose retention is over.
    pub fn records(self, manager: Arc<dyn IdempotencyManager>) -> Purging {
        self.then("records", move |batch| {
            let manager = Arc::clone(&manager);
            async move { manager.purge(batch).await }
        })
    }

    /// Forgets something else: at most as many rows as it is told, and it answers how many.
    pub fn then<F, A, E>(mut self, rows: &'static str, purge: F) -> Purging
    where
        F: Fn(u32) -> A + Send + Sync + 'static,
        A: Future<Output = Result<u64, E>> + Send + 'static,
        E: fmt::Display,
    {
        let purge: Purge = Box::new(move |batch| {
            let purged = purge(batch);
            Box::pin(async move { purged.await.map_err(|error| error.to_string()) })
        });
        self.work.push((rows, purge));
        self
    }

    /// The time for which finished sagas are kept.
    #[must_use]
    pub fn saga_keep(&self) -> Duration {
        self.arguments.saga_keep
    }

    /// Begins, and stops when the service drains: a batch that is interrupted is rolled back.
    pub fn start(self, drain: Drain) -> Drain {
        let purging = tokio::spawn(async move {
            let mut ticks = interval(self.arguments.purge_every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.round().await;
            }
        });
        drain.then("purging", move || async move { purging.abort() })
    }

    async fn round(&self) {
        let batch = self.arguments.purge_batch;
        for (rows, purge) in &self.work {
            let labels = [("service", self.service), ("rows", *rows)];
            loop {
                match purge(batch).await {
                    Ok(purged) => {
                        counter!("purged_rows_total", &labels).increment(purged);
                        if purged < u64::from(batch) {
                            break;
                        }
                    }
                    Err(error) => {
                        counter!("purge_failures_total", &labels).increment(1);
                        tracing::warn!(rows, error, "old rows stay until the next purge");
                        break;
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Purging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.work.iter().map(|(rows, _)| rows)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_round_forgets_batch_after_batch_until_one_is_not_full_whatever_fails() {
        let left = Arc::new(AtomicU64::new(5));
        let old = Arc::clone(&left);
        let arguments = PurgingArguments {
            purge_every: Duration::from_secs(1),
            purge_batch: 2,
            saga_keep: Duration::from_secs(1),
        };
        let purging = Purging { service: "test", arguments, work: Vec::new() }
            .then("broken", |_| async { Err("away") })
            .then("old", move |batch| {
                let purged = u64::from(batch).min(old.load(Ordering::SeqCst));
                old.fetch_sub(purged, Ordering::SeqCst);
                async move { Ok::<_, String>(purged) }
            });
        purging.round().await;
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }
}
