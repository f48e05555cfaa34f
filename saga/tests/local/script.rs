//! The faults of the next calls of a step.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use probity_saga::{Backoff, StepPolicy};
use tokio::sync::{Notify, Semaphore};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Works,
    Fails,
    /// Does not reach another database.
    FailsElsewhere,
    Panics,
    Hangs,
    Rejects,
    /// Works, and proves it by blank evidence.
    ProvesNothing,
    /// Did something outside of its transaction, said so, and fails.
    FailsOutside,
    /// Did something outside of its transaction, said so, and works.
    WorksOutside,
    /// Answers `Ok` although a statement failed.
    Swallows,
    Commits,
    RollsBack,
    /// An output above the limit.
    Overflows,
    /// Did something outside of its transaction, said so, and has an output above the limit.
    OverflowsOutside,
    /// Its connection is killed by the server.
    LosesItsConnection,
    /// The database ends it for the sake of another transaction.
    Conflicts,
    /// Waits in its transaction until it is let go.
    Waits,
}

/// Shared by a step and its test.
pub(crate) struct Script {
    fates: Mutex<VecDeque<Fate>>,
    calls: AtomicU32,
    attempts: Mutex<Vec<u32>>,
    pub(crate) reached: Notify,
    pub(crate) go_on: Semaphore,
}

impl Script {
    pub(crate) fn of(fates: impl IntoIterator<Item = Fate>) -> &'static Self {
        Box::leak(Box::new(Self {
            fates: Mutex::new(fates.into_iter().collect()),
            calls: AtomicU32::new(0),
            attempts: Mutex::default(),
            reached: Notify::new(),
            go_on: Semaphore::new(0),
        }))
    }

    pub(crate) fn next(&self, attempt: u32) -> Fate {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.attempts.lock().unwrap().push(attempt);
        self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Works)
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) async fn wait(&self) {
        self.reached.notify_one();
        self.go_on.acquire().await.unwrap().forget();
    }
}

/// Soon and often: no test waits for long, and none gives up on a slow machine.
pub(crate) fn soon() -> StepPolicy {
    let soon = Backoff::constant(100, std::time::Duration::from_millis(20));
    StepPolicy::default().retries(soon.clone()).undo_retries(soon.clone()).patience(soon)
}
