//! Group commit: drivers hand their records to one task, which writes what is queued, answers all,
//! and looks again. No timer: an idle writer flushes at once, a busy one accumulates.
//!
//! Invariant: a driver hears its own verdict only after the store acknowledged the batch. A lost
//! answer is met by the same batch again; records carry numbers, so that is harmless.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::lease::Lease;
use crate::error::StoreError;
use crate::record::{Inserted, NewSaga, Record, Verdict};
use crate::store::SagaStore;

/// The most records in one batch.
const BATCH: usize = 256;

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
    answer: oneshot::Sender<Result<Inserted, StoreError>>,
}

pub(crate) struct Writer {
    records: mpsc::Sender<Write>,
    inserts: mpsc::Sender<Insert>,
}

impl Writer {
    pub(crate) fn start(store: Arc<dyn SagaStore>, lease: Lease) -> Self {
        let (records, record_queue) = mpsc::channel(4 * BATCH);
        let (inserts, insert_queue) = mpsc::channel(4 * BATCH);
        tokio::spawn(write_records(Arc::clone(&store), lease, record_queue));
        tokio::spawn(write_inserts(store, insert_queue));
        Self { records, inserts }
    }

    pub(crate) async fn apply(&self, record: Record) -> Result<Verdict, Unanswered> {
        let (answer, verdict) = oneshot::channel();
        self.records.send(Write { record, answer }).await.map_err(|_| Unanswered::Lost)?;
        verdict.await.map_err(|_| Unanswered::Lost)
    }

    /// Starts get batches of their own: an insert may wait for a stranger's open transaction on the
    /// same business id, and results must not wait with it.
    pub(crate) async fn insert(&self, saga: NewSaga) -> Result<Inserted, Unanswered> {
        let (answer, inserted) = oneshot::channel();
        self.inserts.send(Insert { saga, answer }).await.map_err(|_| Unanswered::Lost)?;
        inserted.await.map_err(|_| Unanswered::Lost)?.map_err(Unanswered::Store)
    }
}

async fn write_records(store: Arc<dyn SagaStore>, lease: Lease, mut queue: mpsc::Receiver<Write>) {
    let mut writes = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut writes, BATCH).await > 0 {
        while !writes.is_empty() {
            let later = set_repeats_aside(&mut writes);
            flush(&*store, &lease, &mut writes).await;
            writes = later;
        }
    }
}

/// A store takes one record per saga in a batch. Two can meet here when a saga was lost and won back
/// while its old driver was still finishing.
fn set_repeats_aside(writes: &mut Vec<Write>) -> Vec<Write> {
    let mut seen = HashSet::with_capacity(writes.len());
    let (now, later) = writes.drain(..).partition(|write: &Write| seen.insert(write.record.saga));
    *writes = now;
    later
}

/// Writes one batch until the store acknowledges it, or nobody may write it any more.
async fn flush(store: &dyn SagaStore, lease: &Lease, writes: &mut Vec<Write>) {
    let mut wait = Duration::from_millis(50);
    loop {
        if lease.is_revoked() {
            // Dropping a write answers its driver: lost.
            writes.clear();
            return;
        }
        metrics::histogram!("probity_saga_batch_size")
            .record(u32::try_from(writes.len()).unwrap_or(u32::MAX));
        let records: Vec<Record> = writes.iter().map(|write| write.record.clone()).collect();
        match store.apply(&records).await {
            Ok(verdicts) => {
                for (write, verdict) in writes.drain(..).zip(verdicts) {
                    // A driver that is gone does not need its verdict.
                    let _ = write.answer.send(verdict);
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

async fn write_inserts(store: Arc<dyn SagaStore>, mut queue: mpsc::Receiver<Insert>) {
    let mut inserts = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut inserts, BATCH).await > 0 {
        let sagas: Vec<NewSaga> = inserts.iter().map(|insert| insert.saga.clone()).collect();
        match store.insert(&sagas).await {
            Ok(answers) => {
                for (insert, inserted) in inserts.drain(..).zip(answers) {
                    let _ = insert.answer.send(Ok(inserted));
                }
            }
            Err(_) if inserts.len() > 1 => {
                // One bad saga must not fail its neighbours.
                for insert in inserts.drain(..) {
                    let answer = one(&*store, insert.saga).await;
                    let _ = insert.answer.send(answer);
                }
            }
            Err(error) => {
                if let Some(insert) = inserts.pop() {
                    let _ = insert.answer.send(Err(error));
                }
            }
        }
        inserts.clear();
    }
}

async fn one(store: &dyn SagaStore, saga: NewSaga) -> Result<Inserted, StoreError> {
    let mut answers = store.insert(std::slice::from_ref(&saga)).await?;
    answers.pop().ok_or_else(|| StoreError::ambiguous("insert a saga", "the store gave no answer"))
}
