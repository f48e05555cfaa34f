//! A duplicate that waits for the answer of the first request, instead of getting 409.
//!
//! Invariant: waiting holds nothing. A waiter has no claim; it asks again, and runs only if it is then granted one.
//! A request of this process wakes its waiters. For a request of another process each waiter asks the store at growing
//! intervals.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::core::claim::Answer;
use crate::core::identity::RecordId;
use crate::deadline::deadline;
use crate::error::StoreError;
use crate::lease::inquiry::Claimed;

/// The first interval at which the store is asked about a request of another process.
const POLL_FIRST: Duration = Duration::from_millis(25);
/// And the longest.
const POLL_MAX: Duration = Duration::from_millis(500);

/// The answer of the store, or of the hook that was asked about an attempt.
pub(crate) type Asked = Result<Claimed, StoreError>;

/// The requests that wait for a running one, and those that run in this process.
pub(crate) struct Waiting {
    limit: Duration,
    seats: Semaphore,
    running: Mutex<HashMap<RecordId, Arc<Notify>>>,
}

impl Waiting {
    pub(crate) fn new(limit: Duration, waiters: usize) -> Self {
        let seats = Semaphore::new(waiters.min(Semaphore::MAX_PERMITS));
        Self { limit, seats, running: Mutex::default() }
    }

    /// Says that `record` runs in this process, until the answer is dropped.
    pub(crate) fn register(self: &Arc<Self>, record: RecordId) -> RunningHere {
        let done = Arc::new(Notify::new());
        self.here().insert(record, Arc::clone(&done));
        RunningHere { waiting: Arc::clone(self), record, done }
    }

    /// Asks again until the answer is another one than "in flight", or the time is over. `None` if the client has `gone`
    /// before. When every seat is taken, the first answer is the last.
    pub(crate) async fn follow<Asking: Future<Output = Asked>>(
        &self,
        record: RecordId,
        first: Asked,
        mut ask: impl FnMut() -> Asking,
        gone: impl Future<Output = ()>,
    ) -> Option<Asked> {
        let Ok(_seat) = self.seats.try_acquire() else { return Some(first) };
        let until = deadline(Instant::now(), self.limit);
        let mut gone = std::pin::pin!(gone);
        let mut pause = POLL_FIRST;
        loop {
            let here = self.here().get(&record).cloned();
            // Subscribe before asking the store, so that an end between the question and the wait is not missed.
            let ended = here.as_ref().map(|here| here.notified());
            let last = Instant::now() >= until;
            let answer = ask().await;
            if last || !matches!(answer, Ok(Claimed::Answer(Answer::InFlight { .. }))) {
                return Some(answer);
            }
            match ended {
                Some(ended) => tokio::select! {
                    () = ended => {}
                    () = sleep_until(until) => {}
                    () = &mut gone => return None,
                },
                None => tokio::select! {
                    () = sleep_until(until.min(Instant::now() + pause)) => pause = (pause * 2).min(POLL_MAX),
                    () = &mut gone => return None,
                },
            }
        }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<RecordId, Arc<Notify>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that runs in this process; dropping it wakes those that wait for its answer.
pub(crate) struct RunningHere {
    waiting: Arc<Waiting>,
    record: RecordId,
    done: Arc<Notify>,
}

impl Drop for RunningHere {
    fn drop(&mut self) {
        let mut here = self.waiting.here();
        // A later attempt may have taken over, here too; its entry is not ours.
        if here.get(&self.record).is_some_and(|done| Arc::ptr_eq(done, &self.done)) {
            here.remove(&self.record);
        }
        drop(here);
        self.done.notify_waiters();
    }
}
