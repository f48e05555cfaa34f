//! The heartbeat of a worker, which renews its lease in the store.
//!
//! Invariant: no other work of the worker delays the renewal.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Engine, Stop};
use crate::error::StoreError;
use crate::metrics;
use crate::record::{Heartbeat, Worker};

/// Sends one heartbeat, and tells the lease what the store answered.
pub(super) async fn beat(engine: &Engine) -> Result<(), StoreError> {
    let _retires_after_it = engine.beats.read().await;
    if engine.stopping() == Stop::Stopped {
        return Ok(());
    }
    let sent = Instant::now();
    let worker = Worker { id: engine.worker, lease: engine.settings.lease, pid: std::process::id() };
    let answer = engine.store.heartbeat(&worker).await?;
    if sent.elapsed() > renewal(engine) {
        tracing::warn!(took = ?sent.elapsed(), lease = ?engine.settings.lease, "the saga store answered a heartbeat late; check the load of its database");
    }
    match answer {
        Heartbeat::Held => engine.lease.held(sent),
        Heartbeat::Lapsed => {
            // The first heartbeat of a worker is a lapse of nothing.
            if engine.lease.lapsed(sent) {
                metrics::lease_lapsed();
            }
        }
    }
    Ok(())
}

/// A lease is renewed so often.
fn renewal(engine: &Engine) -> Duration {
    engine.settings.lease / 3
}

/// Renews the lease until the worker stops.
pub(super) async fn keep_lease(engine: Arc<Engine>) {
    let mut pause = renewal(&engine);
    while engine.pause_unless_stopped(pause).await {
        let sent = Instant::now();
        // Spawned, so that a heartbeat that hangs is not dropped in the middle of its transaction.
        let beating = Arc::clone(&engine);
        let beat = timeout(engine.settings.lease, tokio::spawn(async move { beat(&beating).await })).await;
        if let Ok(Ok(Ok(()))) = beat {
            // From one sending to the next: otherwise an answer that is late, but in time, would make the next one too late.
            pause = renewal(&engine).saturating_sub(sent.elapsed());
            continue;
        }
        match beat {
            Ok(Err(error)) => {
                tracing::error!(%error, "a heartbeat of the saga worker panicked; the worker tries again")
            }
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "the saga worker could not renew its lease; it tries again")
            }
            _ => tracing::warn!("the saga store did not answer a heartbeat; the worker tries again"),
        }
        engine.lease.struggles();
        // An early heartbeat keeps other workers from taking this worker's sagas.
        pause = renewal(&engine).min(engine.settings.poll);
    }
}
