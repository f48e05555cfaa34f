//! Group commit: drivers hand their records to a lane, which writes what is queued, answers all, and looks again.
//!
//! Invariant: a driver gets its verdict only after the store acknowledged the batch. After a lost answer the same batch
//! is written again, which is harmless, because records carry numbers. A record whose row is locked, or that the store
//! cannot take, delays no other record.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::group_commit::GroupCommit;
use super::lease::Lease;
use crate::error::{Effect, StoreError};
use crate::metrics;
use crate::record::{Inserted, NewSaga, Record, Verdict};
use crate::store::SagaStore;

/// The most commits of results at the same time.
const LANES: usize = 2;

/// The most calls at the same time for records and starts that another's lock holds up.
const ASIDE: usize = 2;

/// The most bytes of one batch, unless one entry is larger: a batch is built in memory more than once.
const BYTES: usize = 4 * 1024 * 1024;

/// The longest wait of a start for its turn to be written by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of tries of a record that the store cannot take, before its saga is paused.
const TRIES: u32 = 5;

/// The reason for which a write was not answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The lease is gone, or the worker is: another worker will go on.
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
    records: Arc<GroupCommit<Write>>,
    inserts: Arc<GroupCommit<Insert>>,
}

impl Writer {
    pub(crate) fn start(store: Arc<dyn SagaStore>, lease: Lease) -> Self {
        let lanes = Arc::new(Lanes { store, lease, aside: Semaphore::new(ASIDE) });
        let starts = Arc::clone(&lanes);
        Self {
            records: GroupCommit::new(
                LANES,
                Box::new(move |writes| write_all(Arc::clone(&lanes), writes).boxed()),
            ),
            inserts: GroupCommit::new(
                1,
                Box::new(move |inserts| insert_all(Arc::clone(&starts), inserts).boxed()),
            ),
        }
    }

    pub(crate) async fn apply(&self, record: Record) -> Result<Verdict, Unanswered> {
        let (answer, verdict) = oneshot::channel();
        self.records.submit(Write { record, answer }).await;
        verdict.await.map_err(|_| Unanswered::Lost)
    }

    /// Starts get batches of their own: an insert may wait for an open transaction of another client on the same
    /// business id, and results must not wait with it.
    pub(crate) async fn insert(&self, saga: NewSaga) -> Result<(NewSaga, Inserted), Unanswered> {
        let (answer, inserted) = oneshot::channel();
        self.inserts.submit(Insert { saga, answer }).await;
        let (saga, inserted) = inserted.await.map_err(|_| Unanswered::Lost)?;
        Ok((saga, inserted.map_err(Unanswered::Store)?))
    }
}

/// The parts that all commits share.
struct Lanes {
    store: Arc<dyn SagaStore>,
    lease: Lease,
    aside: Semaphore,
}

async fn write_all(lanes: Arc<Lanes>, mut writes: Vec<Write>) {
    while !writes.is_empty() {
        let mut repeats = set_repeats_aside(&mut writes);
        let mut later = set_excess_aside(&mut writes, |write| write.record.change.bytes());
        later.append(&mut repeats);
        flush(&lanes, writes).await;
        writes = later;
    }
}

/// Takes out what does not fit into one batch; the first entry always does.
fn set_excess_aside<T>(entries: &mut Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
    let mut sum = 0;
    let beyond = entries.iter().position(|entry| {
        sum += bytes(entry);
        sum > BYTES
    });
    beyond.map(|at| entries.split_off(at.max(1))).unwrap_or_default()
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

/// Writes one batch until the store acknowledges it, or this worker may not write it any more.
async fn flush(lanes: &Arc<Lanes>, writes: Vec<Write>) {
    let (records, answers): (Vec<Record>, Vec<_>) =
        writes.into_iter().map(|write| (write.record, write.answer)).unzip();
    let mut wait = Duration::from_millis(50);
    // Dropping an answer tells its driver: lost.
    while !lanes.lease.is_revoked() {
        metrics::batch_written(records.len());
        let began = Instant::now();
        let written = lanes.store.apply(&records).await;
        metrics::batch_flushed(began.elapsed());
        match written {
            Ok(verdicts) => {
                for (answer, verdict) in answers.into_iter().zip(verdicts) {
                    // A driver that is gone does not need its verdict.
                    let _ = answer.send(verdict);
                }
                return;
            }
            Err(error) if error.may_be_of_one_saga() => {
                tracing::warn!(%error, records = records.len(), "one record holds up its batch of saga results; the worker writes each by itself");
                for (record, answer) in records.into_iter().zip(answers) {
                    tokio::spawn(write_alone(Arc::clone(lanes), record, answer));
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, records = records.len(), "the saga store did not acknowledge a batch of results; the worker writes it again");
                metrics::store_failed();
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}

/// Writes one record whose neighbours must not wait for it.
async fn write_alone(lanes: Arc<Lanes>, record: Record, answer: oneshot::Sender<Verdict>) {
    let (mut wait, mut refusals) = (Duration::from_millis(50), 0);
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
                refusals += u32::from(error.may_be_of_one_saga() && !error.is_contended());
                if refusals == TRIES {
                    let _ = answer.send(Verdict::Refused(error.to_string()));
                    return;
                }
                tracing::warn!(saga_id = %record.saga, %error, "the result of the saga is not written yet; the worker tries again");
                metrics::store_failed();
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(2));
            }
        }
    }
}

async fn insert_all(lanes: Arc<Lanes>, mut inserts: Vec<Insert>) {
    while !inserts.is_empty() {
        // A start whose caller is gone would have no driver.
        inserts.retain(|insert| !insert.answer.is_closed());
        let later = set_excess_aside(&mut inserts, |insert| insert.saga.input.as_json().len());
        insert_batch(&lanes, inserts).await;
        inserts = later;
    }
}

async fn insert_batch(lanes: &Arc<Lanes>, inserts: Vec<Insert>) {
    if inserts.is_empty() {
        return;
    }
    let (sagas, answers): (Vec<NewSaga>, Vec<_>) =
        inserts.into_iter().map(|insert| (insert.saga, insert.answer)).unzip();
    let inserted = insert(&*lanes.store, &sagas).await;
    let several = sagas.len() > 1;
    let entries = sagas.into_iter().zip(answers);
    match inserted {
        Ok(inserted) => {
            for ((saga, answer), inserted) in entries.zip(inserted) {
                // A starter that is gone does not need its answer.
                let _ = answer.send((saga, Ok(inserted)));
            }
        }
        // One bad saga, or one that a stranger's transaction holds up, must not cost its neighbours.
        Err(error) if several && error.may_be_of_one_saga() => {
            for (saga, answer) in entries {
                tokio::spawn(insert_alone(Arc::clone(lanes), Insert { saga, answer }, error.clone()));
            }
        }
        Err(error) => {
            for (saga, answer) in entries {
                let _ = answer.send((saga, Err(error.clone())));
            }
        }
    }
}

/// Asks again once when the answer was lost, as by a server that was restarted: a repeated insert is
/// answered as the first. A refusal of the repetition says nothing about the first.
async fn insert(store: &dyn SagaStore, sagas: &[NewSaga]) -> Result<Vec<Inserted>, StoreError> {
    match store.insert(sagas).await {
        Err(error) if error.effect() == Effect::Unknown => {
            store.insert(sagas).await.map_err(StoreError::after_a_write)
        }
        answer => answer,
    }
}

/// `refusal` is the answer to the whole batch. This record gets the same answer if its turn does not come. If the batch
/// may have been written, no refusal of the saga alone proves that it was not.
async fn insert_alone(lanes: Arc<Lanes>, new: Insert, refusal: StoreError) {
    let maybe = refusal.effect() == Effect::Unknown;
    let inserted = match timeout(PATIENCE, lanes.aside.acquire()).await {
        Ok(_turn) if new.answer.is_closed() => return,
        Ok(_turn) => insert(&*lanes.store, std::slice::from_ref(&new.saga)).await,
        Err(_elapsed) => Err(refusal),
    };
    let nothing = || StoreError::ambiguous("insert a saga", "the store gave no answer");
    let inserted = inserted.and_then(|mut answers| answers.pop().ok_or_else(nothing));
    let inserted = inserted.map_err(|error| if maybe { error.after_a_write() } else { error });
    let _ = new.answer.send((new.saga, inserted));
}
