//! A queue of which everything that waits is committed together, by whoever finds it idle.
//!
//! No timer: an idle lane commits at once, a busy one accumulates. While a full batch waits, a second commit runs beside
//! the first. A store that answers without waiting, as one in memory does, is used where the caller stands: nothing is
//! handed to another task.
//!
//! Invariant: while something waits, a commit is under way or about to begin. A commit is never dropped half way,
//! whatever becomes of the caller in whose task it began.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::yield_now;

/// The most entries in one batch.
const BATCH: usize = 256;

/// So many waiting entries are worth a second commit at the same time.
const FULL: usize = 128;

/// Commits one batch and answers every entry of it.
type Commit<T> = Box<dyn Fn(Vec<T>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Bounded by its users: each waits for its answer before it submits again.
pub(super) struct Lane<T> {
    queue: Mutex<Queue<T>>,
    /// The most commits at the same time.
    width: usize,
    commit: Commit<T>,
}

struct Queue<T> {
    waiting: Vec<T>,
    running: usize,
    /// The last batch had to wait for the store and was not alone: others are about to come, so let them.
    company: bool,
}

impl<T: Send + 'static> Lane<T> {
    pub(super) fn new(width: usize, commit: Commit<T>) -> Arc<Self> {
        let queue = Queue { waiting: Vec::new(), running: 0, company: false };
        Arc::new(Self { queue: Mutex::new(queue), width, commit })
    }

    /// Hands an entry in. Its answer comes when its batch was committed.
    pub(super) fn submit(self: &Arc<Self>, entry: T) {
        let mut queue = self.queue();
        queue.waiting.push(entry);
        let full = queue.running < self.width && queue.waiting.len() >= FULL;
        if queue.running > 0 && !full {
            return;
        }
        queue.running += 1;
        let company = queue.company;
        drop(queue);
        let mut turns = Turns { lane: Arc::clone(self), last: None, over: false };
        if company {
            tokio::spawn(turns.take_all());
        } else if let Some(batch) = turns.next() {
            turns.here(batch);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to commit batch after batch.
struct Turns<T: Send + 'static> {
    lane: Arc<Lane<T>>,
    /// How many the last batch had, and whether the store made it wait.
    last: Option<(usize, bool)>,
    over: bool,
}

impl<T: Send + 'static> Turns<T> {
    /// The next batch; none if the turns are over.
    fn next(&mut self) -> Option<Vec<T>> {
        let mut queue = self.lane.queue();
        if let Some((entries, waited)) = self.last.take() {
            queue.company = waited && entries > 1;
        }
        let waiting = queue.waiting.len();
        if waiting == 0 || (queue.running > 1 && waiting < FULL) {
            queue.running -= 1;
            self.over = true;
            return None;
        }
        if waiting <= BATCH {
            return Some(std::mem::take(&mut queue.waiting));
        }
        Some(queue.waiting.drain(..BATCH).collect())
    }

    /// One batch in the caller's task, the rest in another.
    fn here(mut self, batch: Vec<T>) {
        let entries = batch.len();
        let mut committing = self.begin(batch);
        if (&mut committing).now_or_never().is_some() {
            self.last = Some((entries, false));
            if let Some(batch) = self.next() {
                let committing = self.begin(batch);
                tokio::spawn(async move {
                    committing.await;
                    self.take_all().await;
                });
            }
            return;
        }
        self.last = Some((entries, true));
        tokio::spawn(async move {
            committing.await;
            self.take_all().await;
        });
    }

    async fn take_all(mut self) {
        loop {
            // Whoever was answered just now writes next: in one batch, if they get the time to hand it in.
            yield_now().await;
            let Some(batch) = self.next() else { return };
            let entries = batch.len();
            let mut committing = self.begin(batch);
            let waits = (&mut committing).now_or_never().is_none();
            if waits {
                committing.await;
            }
            self.last = Some((entries, waits));
        }
    }

    /// A store that panics costs the batch its answers, not the lane.
    fn begin(&self, batch: Vec<T>) -> BoxFuture<'static, ()> {
        let committing = AssertUnwindSafe((self.lane.commit)(batch)).catch_unwind();
        committing
            .map(|committed| {
                if committed.is_err() {
                    tracing::error!("the saga store panicked; what it was given is not answered");
                }
            })
            .boxed()
    }
}

impl<T: Send + 'static> Drop for Turns<T> {
    /// The runtime ends: what waits hears that nobody will write it.
    fn drop(&mut self) {
        if !self.over {
            let mut queue = self.lane.queue();
            queue.running -= 1;
            let left = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(left);
        }
    }
}
