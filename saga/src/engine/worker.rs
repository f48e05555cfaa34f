//! What a worker does beside driving: keep its lease, and find sagas that nobody drives.
//!
//! Invariant: one bad saga never stops the loop; a failed look is repeated at the next poll.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Engine, News, Reservation, Stop};
use crate::error::StoreError;
use crate::record::{Beat, ClaimRequest, SagaId, Worker};

/// The most sagas taken over at once, a quarter of what a worker drives unless set otherwise: a dead worker's thousands
/// must not arrive together.
const CLAIM: usize = 256;

/// Starts the loops of a worker, after its first beat.
pub(crate) async fn work(engine: &Arc<Engine>) -> Result<(), StoreError> {
    beat(engine).await?;
    tokio::spawn(keep_lease(Arc::clone(engine)));
    tokio::spawn(recover(Arc::clone(engine)));
    Ok(())
}

async fn beat(engine: &Engine) -> Result<(), StoreError> {
    let sent = Instant::now();
    let worker = Worker { id: engine.worker, lease: engine.settings.lease, pid: std::process::id() };
    match engine.store.beat(&worker).await? {
        Beat::Held => engine.lease.held(sent),
        Beat::Lapsed => {
            metrics::counter!("probity_saga_lease_lapses_total").increment(1);
            engine.lease.lapsed(sent);
        }
    }
    Ok(())
}

async fn keep_lease(engine: Arc<Engine>) {
    let pause = engine.settings.lease / 3;
    while pause_unless_stopped(&engine, pause).await {
        // A task of its own: a beat that hangs is left alone, not dropped in the middle of its transaction.
        let beating = Arc::clone(&engine);
        match timeout(engine.settings.lease, tokio::spawn(async move { beat(&beating).await })).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Err(error)) => tracing::error!(%error, "a heartbeat of the saga worker panicked"),
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the saga worker could not renew its lease"),
            Err(_) => tracing::warn!("the saga store did not answer a heartbeat"),
        }
    }
}

async fn recover(engine: Arc<Engine>) {
    let mut orphans = BTreeSet::new();
    loop {
        let full = match look(&engine, &mut orphans).await {
            Ok(claimed) => claimed >= CLAIM,
            Err(error) => {
                tracing::warn!(%error, "the saga worker could not look for lost sagas");
                false
            }
        };
        let pause = if full { Duration::ZERO } else { engine.settings.poll };
        if !pause_unless_stopped(&engine, pause).await {
            return;
        }
    }
}

/// One look: take over what nobody drives, and tell waiters about sagas driven elsewhere.
async fn look(engine: &Arc<Engine>, orphans: &mut BTreeSet<SagaId>) -> Result<usize, StoreError> {
    let claimed = if engine.stopping() == Stop::Running { claim(engine, orphans).await? } else { 0 };
    let elsewhere: Vec<SagaId> =
        engine.waiters.waited_for().into_iter().filter(|id| !engine.is_active(*id)).collect();
    if !elsewhere.is_empty() {
        for journal in engine.store.load(&elsewhere).await? {
            if let Some(news) = News::of(&journal.instance) {
                engine.waiters.tell(journal.instance.id, news);
            }
        }
    }
    Ok(claimed)
}

async fn claim(engine: &Arc<Engine>, orphans: &mut BTreeSet<SagaId>) -> Result<usize, StoreError> {
    let mut reserved = own_orphans(engine, orphans).await?;
    let room = engine.permits.available_permits().min(CLAIM);
    if room == 0 {
        return Ok(0);
    }
    let request = ClaimRequest {
        worker: engine.worker,
        runnable: engine
            .plans
            .iter()
            .flat_map(|(name, prints)| prints.keys().map(|print| (name.clone(), print.clone())))
            .collect(),
        own: reserved.iter().map(Reservation::id).collect(),
        limit: u32::try_from(room).unwrap_or(1),
        stalled_max: engine.settings.stalled_max,
    };
    let era = engine.lease.era();
    let journals = engine.store.claim(&request).await?;
    let claimed = journals.len();
    for journal in journals {
        let id = journal.instance.id;
        let kept = reserved.iter().position(|reservation| reservation.id() == id);
        let reservation = match kept {
            Some(at) => Some(reserved.swap_remove(at)),
            None => engine.reserve(id),
        };
        // Not reserved: an older drive of the same saga is still ending here; it is found again.
        if let Some(reservation) = reservation {
            tracing::info!(saga.id = %id, saga.r#type = %journal.instance.saga_type, "resuming a saga");
            metrics::counter!("probity_saga_recovery_claims_total").increment(1);
            engine.spawn(reservation, None, journal, false, era);
        }
    }
    Ok(claimed)
}

/// Sagas that this worker owns but does not drive: started in a transaction whose starter never
/// waited, or claimed by a call whose answer was lost. Only what was seen twice counts, so that a
/// starter between its commit and its `wait` keeps the saga.
async fn own_orphans(
    engine: &Arc<Engine>,
    seen: &mut BTreeSet<SagaId>,
) -> Result<Vec<Reservation>, StoreError> {
    let idle: BTreeSet<SagaId> =
        engine.store.owned(engine.worker).await?.into_iter().filter(|id| !engine.is_active(*id)).collect();
    let twice: Vec<SagaId> = idle.intersection(seen).copied().take(CLAIM).collect();
    *seen = idle;
    Ok(twice.into_iter().filter_map(|id| engine.reserve(id)).collect())
}

/// False when the worker stops.
async fn pause_unless_stopped(engine: &Engine, pause: Duration) -> bool {
    let mut stop = engine.stop_signal();
    tokio::select! {
        () = sleep(pause) => engine.stopping() < Stop::Stopped,
        _ = stop.wait_for(|stop| *stop == Stop::Stopped) => false,
    }
}
