//! A queue whose waiting items are committed together, by the caller that finds it idle.
//!
//! No timer: an idle group commits at once, a busy one accumulates. While a full batch waits, a second commit runs beside
//! the first. A store that answers without waiting, as one in memory does, is used where the caller stands: nothing is
//! handed to another task.
//!
//! Invariant: while an item waits, a commit is under way or about to begin. A commit is never dropped half way, also if
//! the caller in whose task it began goes away.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

/// The most entries in one batch.
const BATCH: usize = 256;

/// The number of waiting entries that are worth a second commit at the same time.
const FULL: usize = 128;

/// Commits one batch and answers every entry of it.
type Commit<T> = Box<dyn Fn(Vec<T>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Bounded by its users: each waits for its answer before it submits again.
pub(super) struct GroupCommit<T> {
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

impl<T: Send + 'static> GroupCommit<T> {
    pub(super) fn new(width: usize, commit: Commit<T>) -> Arc<Self> {
        let queue = Queue { waiting: Vec::new(), running: 0, company: false };
        Arc::new(Self { queue: Mutex::new(queue), width, commit })
    }

    /// Hands an entry in. Its answer comes when its batch was committed.
    pub(super) async fn submit(self: &Arc<Self>, entry: T) {
        if self.hand_in(entry) {
            // The task that goes on waits behind this one, on a thread that the caller's next step may block.
            to_the_back().await;
        }
    }

    /// Queues an entry, and answers whether another task was given what is left to commit.
    fn hand_in(self: &Arc<Self>, entry: T) -> bool {
        let mut queue = self.queue();
        queue.waiting.push(entry);
        let full = queue.running < self.width && queue.waiting.len() >= FULL;
        if queue.running > 0 && !full {
            return false;
        }
        queue.running += 1;
        let company = queue.company;
        drop(queue);
        let mut runner = Runner { group: Arc::clone(self), last: None, ended: false };
        if company {
            tokio::spawn(runner.run());
            return true;
        }
        runner.take().is_some_and(|batch| runner.here(batch))
    }

    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to commit batch after batch.
struct Runner<T: Send + 'static> {
    group: Arc<GroupCommit<T>>,
    /// The length of the last batch, and whether the store made it wait.
    last: Option<(usize, bool)>,
    ended: bool,
}

impl<T: Send + 'static> Runner<T> {
    /// The next batch; none if this runner ends.
    fn take(&mut self) -> Option<Vec<T>> {
        let mut queue = self.group.queue();
        if let Some((entries, waited)) = self.last.take() {
            queue.company = waited && entries > 1;
        }
        let waiting = queue.waiting.len();
        if waiting == 0 || (queue.running > 1 && waiting < FULL) {
            queue.running -= 1;
            self.ended = true;
            return None;
        }
        if waiting <= BATCH {
            return Some(std::mem::take(&mut queue.waiting));
        }
        Some(queue.waiting.drain(..BATCH).collect())
    }

    /// One batch in the caller's task, the rest in another: whether there is one.
    fn here(mut self, batch: Vec<T>) -> bool {
        let entries = batch.len();
        let mut committing = self.begin(batch);
        let waits = (&mut committing).now_or_never().is_none();
        self.last = Some((entries, waits));
        if !waits {
            let Some(batch) = self.take() else { return false };
            self.last = Some((batch.len(), waits));
            committing = self.begin(batch);
        }
        tokio::spawn(async move {
            committing.await;
            self.run().await;
        });
        true
    }

    async fn run(mut self) {
        loop {
            // The tasks that were just answered write next: yield once, so that their records share one batch.
            to_the_back().await;
            let Some(batch) = self.take() else { return };
            let entries = batch.len();
            let mut committing = self.begin(batch);
            let waits = (&mut committing).now_or_never().is_none();
            if waits {
                committing.await;
            }
            self.last = Some((entries, waits));
        }
    }

    /// A store that panics costs the batch its answers, and nothing else.
    fn begin(&self, batch: Vec<T>) -> BoxFuture<'static, ()> {
        let committing = AssertUnwindSafe((self.group.commit)(batch)).catch_unwind();
        committing
            .map(|committed| {
                if committed.is_err() {
                    tracing::error!("the saga store panicked; the calls of this batch get no answer");
                }
            })
            .boxed()
    }
}

/// Lets every task run that is ready. Not tokio's `yield_now`, which keeps the task on its thread: a step may block that
/// thread, and must not block the commits of other sagas.
async fn to_the_back() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl<T: Send + 'static> Drop for Runner<T> {
    /// The runtime ends: the waiting items are answered that they will not be written.
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = self.group.queue();
            queue.running -= 1;
            let left = std::mem::take(&mut queue.waiting);
            drop(queue);
            drop(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, mpsc};
    use tokio::task::yield_now;

    use super::*;

    /// A group whose commits wait for a permit each, and tell what they were given.
    fn gated() -> (Arc<GroupCommit<u32>>, Arc<Semaphore>, mpsc::UnboundedReceiver<Vec<u32>>) {
        let (gate, (told, batches)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
        let inside = Arc::clone(&gate);
        let commit = move |batch: Vec<u32>| {
            let (gate, told) = (Arc::clone(&inside), told.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                assert!(!batch.contains(&u32::MAX), "a store that panics");
                told.send(batch).unwrap();
            }
            .boxed()
        };
        (GroupCommit::new(2, Box::new(commit)), gate, batches)
    }

    #[tokio::test]
    async fn records_that_arrive_during_a_commit_share_the_next_one() {
        let (group, gate, mut batches) = gated();
        for entry in 0..4 {
            group.submit(entry).await;
        }
        gate.add_permits(2);
        assert_eq!(batches.recv().await, Some(vec![0]));
        assert_eq!(batches.recv().await, Some(vec![1, 2, 3]));
    }

    #[tokio::test]
    async fn a_second_commit_begins_only_while_a_full_batch_waits() {
        let (group, gate, mut batches) = gated();
        let full = u32::try_from(FULL).unwrap();
        for entry in 0..full {
            group.submit(entry).await;
        }
        assert_eq!(group.queue().running, 1);
        group.submit(full).await;
        assert_eq!(group.queue().running, 2);
        gate.add_permits(2);
        let mut lengths = [batches.recv().await.unwrap().len(), batches.recv().await.unwrap().len()];
        lengths.sort_unstable();
        assert_eq!(lengths, [1, FULL]);
    }

    #[tokio::test]
    async fn a_commit_goes_on_when_its_caller_goes_away_and_after_one_that_panicked() {
        let (group, gate, mut batches) = gated();
        let caller = tokio::spawn({
            let group = Arc::clone(&group);
            async move {
                group.submit(u32::MAX).await;
                std::future::pending::<()>().await;
            }
        });
        while group.queue().running == 0 {
            yield_now().await;
        }
        caller.abort();
        group.submit(1).await;
        gate.add_permits(2);
        assert_eq!(batches.recv().await, Some(vec![1]));
    }
}
