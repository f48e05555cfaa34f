//! Finds sagas that no worker drives and takes them over: a few at first, more while they get done.
//!
//! Invariant: recovery queues for the right to drive as every start does, so neither starves the other. Suspects are
//! taken over alone first, and in groups once one made progress. The groups are smaller for sagas that were there at
//! more deaths. A saga that the next death would park is always alone. A failed look is repeated at the next poll.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::{Engine, Reservation, Settings, Stop};
use crate::error::StoreError;
use crate::metrics;
use crate::record::{ClaimRequest, Journal, SagaId};

/// The most sagas taken over at once, a quarter of what a worker drives unless set otherwise: a dead worker's
/// thousands must not arrive together.
const MOST: usize = 256;

/// The number of sagas that are taken over first; twice as many after each claim that was full.
const FIRST: usize = 16;

/// The number of sagas that may have killed their workers and are driven together until their first results: so many that
/// were there at two deaths, or one that the next death would park.
pub(super) const SUSPECTS: usize = 64;

/// The share of a saga that was there at three deaths.
const OF_THREE: u32 = 4;

/// The kind of suspects that is looked for: sagas that may have killed their workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hunt {
    /// The one that waits longest, alone.
    One,
    /// The sagas that were there at two deaths, together.
    OfTwo,
    /// The same, with those that were there at three.
    OfThree,
}

/// The part of the suspects that a look may take.
struct Leave {
    suspect_at: u32,
    suspects: u32,
    limit: u32,
    /// The shares to give out.
    shares: Option<OwnedSemaphorePermit>,
}

/// The memory of a worker between two looks.
struct Recovery {
    engine: Arc<Engine>,
    /// Owned but not driven when last seen.
    orphans: BTreeSet<SagaId>,
    /// The most sagas that the next claim may take.
    window: usize,
    /// Not earlier is a suspect asked for: that looks through all that waits.
    next_suspect: Instant,
    hunt: Hunt,
    /// The last look took nothing over, because the store was away.
    settling: bool,
}

/// The sagas that one look took over.
struct Batch {
    /// The claim was full: there may be more.
    full: bool,
    suspect: bool,
    /// The next look is for others.
    again: bool,
    /// The number of ends that the next claim waits for: half of the batch.
    half: u32,
    ended: Arc<Semaphore>,
}

impl Batch {
    fn nothing() -> Self {
        Self { full: false, suspect: false, again: false, half: 0, ended: Arc::new(Semaphore::new(0)) }
    }
}

pub(super) async fn recover(engine: Arc<Engine>) {
    let mut recovery = Recovery {
        engine: Arc::clone(&engine),
        orphans: BTreeSet::new(),
        window: FIRST,
        next_suspect: Instant::now(),
        hunt: Hunt::One,
        settling: false,
    };
    loop {
        let batch = match AssertUnwindSafe(recovery.look()).catch_unwind().await {
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not look for lost sagas; it tries again");
                Batch::nothing()
            }
            Err(_panic) => {
                tracing::error!("looking for lost sagas panicked; the saga worker tries again");
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
    /// False when the worker stops. It waits until half of the batch has ended, or for one poll.
    async fn pause(&self, batch: &Batch) -> bool {
        let engine = &self.engine;
        if !batch.full && !batch.suspect && !batch.again {
            return engine.pause_unless_stopped(engine.settings.poll).await;
        }
        let settled = async {
            let _half = batch.ended.acquire_many(batch.half).await;
            if batch.suspect {
                let _made_progress = engine.suspects.acquire_many(permits(SUSPECTS / 2)).await;
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
        let before = std::mem::replace(&mut self.settling, engine.lease.settles());
        if self.settling {
            if !before {
                tracing::warn!(lease = ?engine.settings.lease, "a heartbeat of the saga worker failed, was late or found its lease lapsed; the worker takes no saga over for the length of a lease");
            }
            return Ok(Batch::nothing());
        }
        let Some(mut room) = self.room().await else { return Ok(Batch::nothing()) };
        let mut reserved = self.own_orphans(room.num_permits()).await?;
        let mut leave = self.leave();
        let request = ClaimRequest {
            worker: engine.worker,
            runnable: engine.runnable(),
            own: reserved.iter().map(Reservation::id).collect(),
            limit: permits(room.num_permits()).min(leave.limit),
            stalled_max: engine.settings.stalled_max,
            suspect_at: leave.suspect_at,
            suspects: leave.suspects,
        };
        let term = engine.lease.term();
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
            // The claim was counted as well.
            let deaths = journal.instance.stalled_claims.saturating_sub(1);
            if deaths >= engine.settings.suspect_at && kept.is_none() {
                let share = if self.hunt == Hunt::One { SUSPECTS } else { share(deaths, &engine.settings) };
                reservation.suspect = leave.shares.as_mut().and_then(|shares| shares.split(share));
                batch.suspect = true;
            }
            reservation.ended = Some(Arc::clone(&batch.ended));
            batch.half += 1;
            let clean = kept.is_some() && is_untouched(&engine, &journal);
            let reason = if kept.is_some() { "own" } else { "unowned" };
            resume(&engine, reservation, permit, journal, Known { term, clean, reason });
        }
        batch.half /= 2;
        batch.again = self.goes_on(leave.shares.is_some(), batch.suspect);
        Ok(batch)
    }

    /// The right to drive some sagas; none when the worker leaves. A worker that is always busy has none free, so it
    /// queues for a small share of them.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let engine = &self.engine;
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

    /// Says which of the sagas that may have killed their workers the next look may take.
    fn leave(&mut self) -> Leave {
        let (settings, suspects) = (&self.engine.settings, &self.engine.suspects);
        let free = permits(suspects.available_permits());
        let shares = |count: u32| Arc::clone(suspects).try_acquire_many_owned(count).ok();
        let nobody = Leave { suspect_at: settings.suspect_at, suspects: 0, limit: u32::MAX, shares: None };
        let now = Instant::now();
        match self.hunt {
            Hunt::One if now >= self.next_suspect => {
                self.next_suspect = now + settings.poll;
                match shares(permits(SUSPECTS)) {
                    Some(all) => Leave { suspects: 1, shares: Some(all), ..nobody },
                    None => nobody,
                }
            }
            Hunt::OfTwo if free > 0 => {
                Leave { suspect_at: settings.suspect_at + 1, limit: free, shares: shares(free), ..nobody }
            }
            Hunt::OfThree if free >= OF_THREE => Leave {
                suspect_at: settings.suspect_at + 2,
                limit: free / OF_THREE,
                shares: shares(free),
                ..nobody
            },
            _ => nobody,
        }
    }

    /// Goes from those that are there to those that are left, and to nothing else while there are some. True if the next
    /// look is for others.
    fn goes_on(&mut self, looked: bool, found: bool) -> bool {
        if !looked {
            return false;
        }
        let before = self.hunt;
        self.hunt = match (before, found) {
            (Hunt::One | Hunt::OfTwo, true) => Hunt::OfTwo,
            (Hunt::OfTwo, false) | (Hunt::OfThree, true) => Hunt::OfThree,
            (Hunt::One | Hunt::OfThree, false) => Hunt::One,
        };
        if self.hunt == Hunt::One && before != Hunt::One {
            self.next_suspect = Instant::now();
        }
        self.hunt != before
    }

    /// Sagas that this worker owns but does not drive: started in a transaction whose starter never
    /// waited, or claimed by a call whose answer was lost. Only what was seen twice counts, so that a
    /// starter between its commit and its `wait` keeps the saga.
    async fn own_orphans(&mut self, most: usize) -> Result<Vec<Reservation>, StoreError> {
        let engine = &self.engine;
        let owned = engine.store.owned(engine.worker).await?;
        engine.left().retain(|id| owned.contains(id));
        let idle: BTreeSet<SagaId> = owned.into_iter().filter(|id| !engine.is_active(*id)).collect();
        let twice: Vec<SagaId> = idle.intersection(&self.orphans).copied().take(most).collect();
        let reserved = twice.into_iter().filter_map(|id| engine.reserve(id)).collect();
        self.orphans = idle;
        Ok(reserved)
    }
}

/// The share of `SUSPECTS` that a saga takes which was there at so many deaths.
fn share(deaths: u32, settings: &Settings) -> usize {
    match settings.stalled_max.saturating_sub(deaths) {
        0 | 1 => SUSPECTS,
        2 => OF_THREE as usize,
        _ => 1,
    }
}

fn permits(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(1)
}

/// Says if no worker can have begun the first step: this worker inserted the saga, this claim is the first, and no
/// drive of it ended here. Its starter committed and never waited.
fn is_untouched(engine: &Engine, journal: &Journal) -> bool {
    let Journal { instance, steps } = journal;
    let first_claim = instance.epoch == 2 && instance.write_no == 0 && steps.is_empty();
    first_claim && !engine.left().contains(&instance.id)
}

/// The knowledge about a saga that was taken over.
struct Known {
    term: super::LeaseTerm,
    clean: bool,
    reason: &'static str,
}

fn resume(
    engine: &Arc<Engine>,
    reservation: Reservation,
    permit: OwnedSemaphorePermit,
    journal: Journal,
    known: Known,
) {
    let Known { term, clean, reason } = known;
    let Journal { instance, .. } = &journal;
    tracing::info!(saga_id = %instance.id, saga_type = %instance.saga_type, "the worker resumes the saga");
    metrics::saga_taken_over(reason);
    engine.spawn(reservation, Some(permit), journal, clean, term);
}
