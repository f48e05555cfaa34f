//! The start of a saga: its row is inserted, and this worker drives it.
//!
//! Invariant: a saga that was inserted is driven from its beginning, or its [`Turn`] is given back for the next call that
//! waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Engine;
use super::notifier::Notification;
use crate::codec::Place;
use crate::error::SagaError;
use crate::metrics;
use crate::record::{Document, Inserted, Journal, NewSaga, SagaId};

/// A saga that was started. Pass it to [`Orchestrator::wait`](crate::Orchestrator::wait).
#[derive(Debug)]
pub struct Started {
    id: SagaId,
    existed: bool,
    /// No worker drives it yet, and its owner is this worker: `wait` does, without another write.
    undriven: AtomicBool,
}

impl Started {
    fn existing(id: SagaId) -> Self {
        Self { id, existed: true, undriven: AtomicBool::new(false) }
    }

    /// Takes the turn to drive a saga that [`Orchestrator::start_in`](crate::Orchestrator::start_in) inserted.
    pub(crate) fn take_turn(&self) -> Turn<'_> {
        Turn { undriven: &self.undriven, is_ours: self.undriven.swap(false, Ordering::AcqRel) }
    }

    /// The id of the saga.
    #[must_use]
    pub fn id(&self) -> SagaId {
        self.id
    }

    /// Tells whether an earlier start with the same business id and input is the one that counts.
    #[must_use]
    pub fn existed(&self) -> bool {
        self.existed
    }
}

/// The right to drive a saga that was inserted by a transaction. It is given back when it is dropped unused.
pub(crate) struct Turn<'a> {
    undriven: &'a AtomicBool,
    pub(crate) is_ours: bool,
}

impl Turn<'_> {
    /// Keeps the turn: the saga was looked at, so no later call drives it from its beginning.
    pub(crate) fn used(mut self) {
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

/// Inserts a saga and drives it. With `waits`, the answer has its notification, subscribed to before a worker drives it.
pub(crate) async fn insert_and_drive(
    engine: Arc<Engine>,
    new: NewSaga,
    permit: OwnedSemaphorePermit,
    waits: bool,
) -> Result<(Started, Option<oneshot::Receiver<Notification>>), SagaError> {
    // Before the row exists, so that the recovery loop never sees it undriven.
    let reservation = engine.reserve(new.id);
    let term = engine.lease.term();
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
        news = waits.then(|| engine.notifier.subscribe(new.id));
        let fresh = Journal { instance: new.into_instance(), steps: Vec::new() };
        engine.spawn(reservation, Some(permit), fresh, true, term);
    }
    Ok((started, news))
}

/// Tells whether a saga was started with the same input after all: the keys of a map have no order, and its
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

/// Reads the answer of the store to an insert.
pub(crate) fn accept(new: &NewSaga, inserted: &Inserted) -> Result<Started, SagaError> {
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

pub(crate) fn count_start(engine: &Engine, new: &NewSaga) {
    if let Some(plan) = engine.plan(&new.saga_type, &new.definition) {
        metrics::saga_started(&plan.name);
    }
}
