//! Group commit: drivers hand their records to a lane, which writes what is queued, answers all, and looks again.
//!
//! Invariant: a driver hears its own verdict only after the store acknowledged the batch. A lost
//! answer is met by the same batch again; records carry numbers, so that is harmless. A record whose
//! row somebody holds waits by itself, not its neighbours.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use super::lane::Lane;
use super::lease::Lease;
use crate::error::{Effect, StoreError};
use crate::record::{Inserted, NewSaga, Record, Verdict};
use crate::store::SagaStore;

/// The most commits of results at the same time.
const LANES: usize = 2;

/// The most calls at the same time for records and starts that somebody else's lock holds up.
const ASIDE: usize = 2;

/// Why a write was not answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The lease is gone, or the worker is: somebody else will go on.
    Lost,
    /// The store failed; only inserts answer this, because a caller waits for them.
    Store(StoreError),
}

struct Write {
    record: Record,
    answer: oneshot::Sender<Verdict>,
}

struct Insert {
    saga: NewSaga,
    /// The saga comes back with the answer.
    answer: oneshot::Sender<(NewSaga, Result<Inserted, StoreError>)>,
}

pub(crate) struct Writer {
    records: Arc<Lane<Write>>,
    inserts: Arc<Lane<Insert>>,
}

impl Writer {
    pub(crate) fn start(store: Arc<dyn SagaStore>, lease: Lease) -> Self {
        let lanes = Arc::new(Lanes { store, lease, aside: Semaphore::new(ASIDE) });
        let starts = Arc::clone(&lanes);
        Self {
            records: Lane::new(LANES, Box::new(move |writes| write_all(Arc::clone(&lanes), writes).boxed())),
            inserts: Lane::new(1, Box::new(move |inserts| insert_all(Arc::clone(&starts), inserts).boxed())),
        }
    }

    pub(crate) async fn apply(&self, record: Record) -> Result<Verdict, Unanswered> {
        let (answer, verdict) = oneshot::channel();
        self.records.submit(Write { record, answer }).await;
        verdict.await.map_err(|_| Unanswered::Lost)
    }

    /// Starts get batches of their own: an insert may wait for a stranger's open transaction on the
    /// same business id, and results must not wait with it.
    pub(crate) async fn insert(&self, saga: NewSaga) -> Result<(NewSaga, Inserted), Unanswered> {
        let (answer, inserted) = oneshot::channel();
        self.inserts.submit(Insert { saga, answer }).await;
        let (saga, inserted) = inserted.await.map_err(|_| Unanswered::Lost)?;
        Ok((saga, inserted.map_err(Unanswered::Store)?))
    }
}

/// What the commits share.
struct Lanes {
    store: Arc<dyn SagaStore>,
    lease: Lease,
    aside: Semaphore,
}

async fn write_all(lanes: Arc<Lanes>, mut writes: Vec<Write>) {
    while !writes.is_empty() {
        let later = set_repeats_aside(&mut writes);
        flush(&lanes, writes).await;
        writes = later;
    }
}

/// A store takes one record per saga in a batch. Two can meet here when a saga was lost and won back
/// while its old driver was still finishing.
fn set_repeats_aside(writes: &mut Vec<Write>) -> Vec<Write> {
    let mut seen = HashSet::with_capacity(writes.len());
    if writes.iter().all(|write| seen.insert(write.record.saga)) {
        return Vec::new();
    }
    seen.clear();
    let (now, later) = writes.drain(..).partition(|write: &Write| seen.insert(write.record.saga));
    *writes = now;
    later
}

/// Writes one batch until the store acknowledges it, or nobody may write it any more.
async fn flush(lanes: &Arc<Lanes>, writes: Vec<Write>) {
    let (records, answers): (Vec<Record>, Vec<_>) =
        writes.into_iter().map(|write| (write.record, write.answer)).unzip();
    let mut wait = Duration::from_millis(50);
    // Dropping an answer tells its driver: lost.
    while !lanes.lease.is_revoked() {
        metrics::histogram!("probity_saga_batch_size")
            .record(u32::try_from(records.len()).unwrap_or(u32::MAX));
        match lanes.store.apply(&records).await {
            Ok(verdicts) => {
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    // A driver that is gone does not need its verdict.
                    let _ = answer.send(verdict);
                }
                return;
            }
            Err(error) if error.is_contended() => {
                tracing::warn!(%error, records = records.len(), "a lock holds up a batch of saga results; each is written by itself");
                for (record, answer) in records.into_iter().zip(answers) {
                    tokio::spawn(write_alone(Arc::clone(lanes), record, answer));
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, records = records.len(), "a batch of saga results was not acknowledged; writing it again");
                metrics::counter!("probity_saga_store_errors_total").increment(1);
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}

/// Writes one record whose neighbours must not wait for it.
async fn write_alone(lanes: Arc<Lanes>, record: Record, answer: oneshot::Sender<Verdict>) {
    let mut wait = Duration::from_millis(50);
    while !lanes.lease.is_revoked() {
        let turn = lanes.aside.acquire().await;
        let written = lanes.store.apply(std::slice::from_ref(&record)).await;
        drop(turn);
        match written {
            Ok(mut verdicts) => {
                let _ = answer.send(verdicts.pop().unwrap_or(Verdict::Fenced));
                return;
            }
            Err(error) => {
                tracing::warn!(saga.id = %record.saga, %error, "a saga's result still waits");
                metrics::counter!("probity_saga_store_errors_total").increment(1);
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}

async fn insert_all(lanes: Arc<Lanes>, inserts: Vec<Insert>) {
    let (sagas, answers): (Vec<NewSaga>, Vec<_>) =
        inserts.into_iter().map(|insert| (insert.saga, insert.answer)).unzip();
    match insert(&*lanes.store, &sagas).await {
        Ok(inserted) => {
            for ((saga, answer), inserted) in sagas.into_iter().zip(answers).zip(inserted) {
                // A starter that is gone does not need its answer.
                let _ = answer.send((saga, Ok(inserted)));
            }
        }
        // One bad saga, or one that a stranger's transaction holds up, must not cost its neighbours.
        Err(_) if sagas.len() > 1 => {
            for (saga, answer) in sagas.into_iter().zip(answers) {
                tokio::spawn(insert_alone(Arc::clone(&lanes), saga, answer));
            }
        }
        Err(error) => {
            if let (Some(saga), Some(answer)) = (sagas.into_iter().next(), answers.into_iter().next()) {
                let _ = answer.send((saga, Err(error)));
            }
        }
    }
}

/// Asks again once when the answer was lost, as by a server that was restarted: a repeated insert is
/// answered as the first.
async fn insert(store: &dyn SagaStore, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
    match store.insert(sagas).await {
        Err(error) if error.effect() == Effect::Unknown => store.insert(sagas).await,
        answer => answer,
    }
}

async fn insert_alone(
    lanes: Arc<Lanes>,
    saga: NewSaga,
    answer: oneshot::Sender<(NewSaga, Result<Inserted, StoreError>)>,
) {
    let turn = lanes.aside.acquire().await;
    let inserted = insert(&*lanes.store, std::slice::from_ref(&saga)).await;
    drop(turn);
    let nothing = || StoreError::ambiguous("insert a saga", "the store gave no answer");
    let _ = answer.send((saga, inserted.and_then(|mut answers| answers.pop().ok_or_else(nothing))));
}
