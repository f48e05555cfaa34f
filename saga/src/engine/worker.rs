//! The tasks of a worker beside driving: it keeps its lease, looks for sagas that nobody drives, and listens for those
//! that others drive.
//!
//! Invariant: the lease waits for nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::census::count;
use super::elsewhere::listen;
use super::recover::recover;
use super::requests::listen_for_requests;
use super::{Engine, Stop};
use crate::error::StoreError;
use crate::record::{Beat, Worker};

/// Starts the loops of a worker, after its first beat.
pub(crate) async fn work(engine: &Arc<Engine>) -> Result<(), StoreError> {
    beat(engine).await?;
    tokio::spawn(keep_lease(Arc::clone(engine)));
    tokio::spawn(recover(Arc::clone(engine)));
    tokio::spawn(listen(Arc::clone(engine)));
    tokio::spawn(listen_for_requests(Arc::clone(engine)));
    tokio::spawn(count(Arc::clone(engine)));
    Ok(())
}

async fn beat(engine: &Engine) -> Result<(), StoreError> {
    let sent = Instant::now();
    let worker = Worker { id: engine.worker, lease: engine.settings.lease, pid: std::process::id() };
    let answer = engine.store.beat(&worker).await?;
    if sent.elapsed() > renewal(engine) {
        tracing::warn!(took = ?sent.elapsed(), lease = ?engine.settings.lease, "the saga store answers heartbeats late");
    }
    match answer {
        Beat::Held => engine.lease.held(sent),
        Beat::Lapsed => {
            engine.lease.lapsed(sent);
            metrics::counter!("probity_saga_lease_lapses_total").increment(1);
        }
    }
    Ok(())
}

/// A lease is renewed so often.
fn renewal(engine: &Engine) -> Duration {
    engine.settings.lease / 3
}

async fn keep_lease(engine: Arc<Engine>) {
    let mut pause = renewal(&engine);
    while pause_unless_stopped(&engine, pause).await {
        // A task of its own: a beat that hangs is left alone, not dropped in the middle of its transaction.
        let beating = Arc::clone(&engine);
        let beat = timeout(engine.settings.lease, tokio::spawn(async move { beat(&beating).await })).await;
        if let Ok(Ok(Ok(()))) = beat {
            pause = renewal(&engine);
            continue;
        }
        match beat {
            Ok(Err(error)) => tracing::error!(%error, "a heartbeat of the saga worker panicked"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the saga worker could not renew its lease"),
            _ => tracing::warn!("the saga store did not answer a heartbeat"),
        }
        engine.lease.struggles();
        // The sooner this worker is seen to live, the less is taken from it.
        pause = renewal(&engine).min(engine.settings.poll);
    }
}

/// False when the worker stops.
pub(super) async fn pause_unless_stopped(engine: &Engine, pause: Duration) -> bool {
    let mut stop = engine.stop_signal();
    tokio::select! {
        () = sleep(pause) => engine.stopping() < Stop::Stopped,
        _ = stop.wait_for(|stop| *stop == Stop::Stopped) => false,
    }
}
