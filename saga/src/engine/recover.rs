//! Finds sagas that nobody drives and takes them over: a few at first, more while they get done.
//!
//! Invariant: recovery queues for the right to drive as every start does, so neither starves the other. What may have
//! killed its workers is taken over one at a time. A failed look is repeated at the next poll.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::worker::pause_unless_stopped;
use super::{Engine, Reservation, Stop};
use crate::error::StoreError;
use crate::record::{ClaimRequest, Journal, SagaId};

/// The most sagas taken over at once, a quarter of what a worker drives unless set otherwise: a dead worker's
/// thousands must not arrive together.
const MOST: usize = 256;

/// How many are taken over first; twice as many after each claim that was full.
const FIRST: usize = 16;

/// What a worker remembers between two looks.
struct Recovery {
    engine: Arc<Engine>,
    /// Owned but not driven when last seen.
    orphans: BTreeSet<SagaId>,
    /// How many the next claim may take.
    window: usize,
    /// Not earlier is a suspect asked for: that looks through all that waits.
    next_suspect: Instant,
}

/// What one look took over.
struct Batch {
    /// As many as were asked for: there may be more.
    full: bool,
    suspect: bool,
    /// So many that the next claim waits for: half of them.
    half: u32,
    ended: Arc<Semaphore>,
}

impl Batch {
    fn nothing() -> Self {
        Self { full: false, suspect: false, half: 0, ended: Arc::new(Semaphore::new(0)) }
    }
}

pub(super) async fn recover(engine: Arc<Engine>) {
    let mut recovery = Recovery {
        engine: Arc::clone(&engine),
        orphans: BTreeSet::new(),
        window: FIRST,
        next_suspect: Instant::now(),
    };
    loop {
        let batch = match AssertUnwindSafe(recovery.look()).catch_unwind().await {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not look for lost sagas");
                Batch::nothing()
            }
            Err(_panic) => {
                tracing::error!("looking for lost sagas panicked; it is tried again");
                Batch::nothing()
            }
        };
        recovery.window = if batch.full { (recovery.window * 2).min(MOST) } else { FIRST };
        if !recovery.pause(&batch).await {
            return;
        }
    }
}

impl Recovery {
    /// False when the worker stops. What was taken over gets done before more is, or has the time of a poll to.
    async fn pause(&self, batch: &Batch) -> bool {
        let engine = &self.engine;
        if !batch.full && !batch.suspect {
            return pause_unless_stopped(engine, engine.settings.poll).await;
        }
        let settled = async {
            let _half = batch.ended.acquire_many(batch.half).await;
            if batch.suspect {
                let _made_progress = engine.suspects.acquire().await;
            }
        };
        let mut stop = engine.stop_signal();
        tokio::select! {
            _ = timeout(engine.settings.poll, settled) => engine.stopping() < Stop::Stopped,
            _ = stop.wait_for(|stop| *stop == Stop::Stopped) => false,
        }
    }

    async fn look(&mut self) -> Result<Batch, StoreError> {
        let engine = Arc::clone(&self.engine);
        let Some(mut room) = self.room().await else { return Ok(Batch::nothing()) };
        let mut reserved = self.own_orphans(room.num_permits()).await?;
        let mut alone = self.suspect();
        let request = ClaimRequest {
            worker: engine.worker,
            runnable: engine.runnable(),
            own: reserved.iter().map(Reservation::id).collect(),
            limit: u32::try_from(room.num_permits()).unwrap_or(1),
            stalled_max: engine.settings.stalled_max,
            suspect_at: engine.settings.suspect_at,
            suspects: u32::from(alone.is_some()),
        };
        let era = engine.lease.era();
        let journals = engine.store.claim(&request).await?;
        let mut batch = Batch { full: journals.len() >= request.limit as usize, ..Batch::nothing() };
        for journal in journals {
            let id = journal.instance.id;
            let kept = reserved.iter().position(|reservation| reservation.id() == id);
            let reservation = match kept {
                Some(at) => Some(reserved.swap_remove(at)),
                None => engine.reserve(id),
            };
            // Not reserved: an older drive of the same saga is still ending here; it is found again.
            let (Some(mut reservation), Some(permit)) = (reservation, room.split(1)) else { continue };
            if journal.instance.stalled_claims > request.suspect_at && kept.is_none() {
                reservation.suspect = alone.take();
                batch.suspect |= reservation.suspect.is_some();
            }
            reservation.ended = Some(Arc::clone(&batch.ended));
            batch.half += 1;
            let reason = if kept.is_some() { "own" } else { "unowned" };
            resume(&engine, reservation, permit, journal, era, reason);
        }
        batch.half /= 2;
        if batch.suspect {
            self.next_suspect = Instant::now();
        }
        Ok(batch)
    }

    /// The right to drive some sagas; none when the worker leaves. A worker that is always busy has none free, so it
    /// queues for a small share of them.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let engine = &self.engine;
        let permits = |count: usize| u32::try_from(count).unwrap_or(1);
        let free = permits(engine.permits.available_permits().min(self.window));
        let room = match Arc::clone(&engine.permits).try_acquire_many_owned(free) {
            Ok(room) if free > 0 => room,
            _ => {
                let share = permits(engine.settings.in_flight.div_ceil(FIRST).min(self.window));
                let mut stop = engine.stop_signal();
                tokio::select! {
                    room = Arc::clone(&engine.permits).acquire_many_owned(share) => room.ok()?,
                    _ = stop.wait_for(|stop| *stop >= Stop::Draining) => return None,
                }
            }
        };
        (engine.stopping() == Stop::Running).then_some(room)
    }

    /// The right to drive the only saga here that may have killed its workers.
    fn suspect(&mut self) -> Option<OwnedSemaphorePermit> {
        let now = Instant::now();
        if now < self.next_suspect {
            return None;
        }
        let alone = Arc::clone(&self.engine.suspects).try_acquire_owned().ok()?;
        self.next_suspect = now + self.engine.settings.poll;
        Some(alone)
    }

    /// Sagas that this worker owns but does not drive: started in a transaction whose starter never
    /// waited, or claimed by a call whose answer was lost. Only what was seen twice counts, so that a
    /// starter between its commit and its `wait` keeps the saga.
    async fn own_orphans(&mut self, most: usize) -> Result<Vec<Reservation>, StoreError> {
        let engine = &self.engine;
        let owned = engine.store.owned(engine.worker).await?;
        let idle: BTreeSet<SagaId> = owned.into_iter().filter(|id| !engine.is_active(*id)).collect();
        let twice: Vec<SagaId> = idle.intersection(&self.orphans).copied().take(most).collect();
        let reserved = twice.into_iter().filter_map(|id| engine.reserve(id)).collect();
        self.orphans = idle;
        Ok(reserved)
    }
}

fn resume(
    engine: &Arc<Engine>,
    reservation: Reservation,
    permit: OwnedSemaphorePermit,
    journal: Journal,
    era: super::Era,
    reason: &'static str,
) {
    let Journal { instance, .. } = &journal;
    tracing::info!(saga.id = %instance.id, saga.r#type = %instance.saga_type, "resuming a saga");
    metrics::counter!("probity_saga_recovery_claims_total", "reason" => reason).increment(1);
    engine.spawn(reservation, Some(permit), journal, false, era);
}
