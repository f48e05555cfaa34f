//! How an inserted row becomes a drive, and whose turn that is.
//!
//! Invariant: what was inserted is driven from its beginning, or its [`Turn`] is given back to whoever starts it next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Started;
use crate::codec::Place;
use crate::engine::{Engine, News};
use crate::error::SagaError;
use crate::record::{Document, Inserted, Journal, NewSaga, SagaId};

/// The right to drive what [`Orchestrator::start_in`] started, given back when it is dropped unused.
pub(super) struct Turn<'a> {
    undriven: &'a AtomicBool,
    pub(super) is_ours: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn taken(undriven: &'a AtomicBool) -> Self {
        Self { undriven, is_ours: undriven.swap(false, Ordering::AcqRel) }
    }

    pub(super) fn used(mut self) {
        self.is_ours = false;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_ours {
            self.undriven.store(true, Ordering::Release);
        }
    }
}

pub(super) async fn insert_and_drive(
    engine: Arc<Engine>,
    new: NewSaga,
    permit: OwnedSemaphorePermit,
    waits: bool,
) -> Result<(Started, Option<oneshot::Receiver<News>>), SagaError> {
    // Before the row exists, so that the recovery loop never sees it undriven.
    let reservation = engine.reserve(new.id);
    let era = engine.lease.era();
    let (new, inserted) = engine.writer.insert(new).await?;
    let started = match accept(&new, &inserted) {
        Err(SagaError::InputConflict { existing, .. }) if is_of_input(&engine, existing, &new).await? => {
            Started::existing(existing)
        }
        answer => answer?,
    };
    let mut news = None;
    if let (false, Some(reservation)) = (started.existed, reservation) {
        count_start(&engine, &new);
        started.undriven.store(false, Ordering::Release);
        news = waits.then(|| engine.waiters.subscribe(new.id));
        let fresh = Journal { instance: new.started(), steps: Vec::new() };
        engine.spawn(reservation, Some(permit), fresh, true, era);
    }
    Ok((started, news))
}

/// Whether a saga was started with the same input after all: the keys of a map have no order, and its
/// hash is one of their text.
async fn is_of_input(engine: &Engine, existing: SagaId, new: &NewSaga) -> Result<bool, SagaError> {
    let Some(journal) = engine.store.load(&[existing]).await?.pop() else { return Ok(false) };
    let plain = |saga: SagaId, input: &Document| {
        let place = Place { saga_type: &new.saga_type, saga, output_of: None };
        engine.sealer.open_plain(&place, input)
    };
    Ok(match (plain(existing, &journal.instance.input), plain(new.id, &new.input)) {
        (Ok(old), Ok(new)) => old.means_the_same_as(&new),
        _ => false,
    })
}

pub(super) fn accept(new: &NewSaga, inserted: &Inserted) -> Result<Started, SagaError> {
    match inserted {
        Inserted::Created => Ok(Started { id: new.id, existed: false, undriven: AtomicBool::new(true) }),
        Inserted::Exists { id, input_hash } if *input_hash == new.input_hash => Ok(Started::existing(*id)),
        Inserted::Exists { id, .. } => Err(SagaError::InputConflict {
            saga: new.saga_type.clone(),
            business_id: new.business_id.clone(),
            existing: *id,
        }),
    }
}

pub(super) fn count_start(engine: &Engine, new: &NewSaga) {
    if let Some(plan) = engine.plan(&new.saga_type, &new.definition) {
        metrics::counter!("probity_saga_started_total", "type" => Arc::clone(&plan.name)).increment(1);
    }
}
