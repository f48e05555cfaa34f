//! A limit on how many runs of one label are in flight.
//!
//! On hot rows, waiting outside the database beats waiting in it: a waiting run holds no connection,
//! no lock and no snapshot.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The runs with the same label and the same limit share a semaphore.
type Limiters = HashMap<(&'static str, usize), Arc<Semaphore>>;

static LIMITERS: LazyLock<Mutex<Limiters>> = LazyLock::new(Mutex::default);

/// A place among the runs of a label. The session and the end of an attempt have a share in it: a COMMIT or a
/// ROLLBACK under way counts, also after its run was dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Permit(Option<Arc<Mutex<Option<OwnedSemaphorePermit>>>>);

impl Permit {
    /// Frees the permit, for all its holders. Hooks after the commit hold nothing that the next run could wait for.
    pub(crate) fn release(&self) {
        if let Some(permit) = &self.0 {
            drop(permit.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// The deadline passed before there was a place.
#[derive(Debug)]
pub(crate) struct TimedOut;

/// Waits for a place; without a limit there is always one.
pub(crate) async fn acquire(
    label: &'static str,
    limit: Option<usize>,
    deadline: Instant,
) -> Result<Permit, TimedOut> {
    let Some(limit) = limit else { return Ok(Permit::default()) };
    let limit = limit.min(Semaphore::MAX_PERMITS);
    let limiter = {
        // A panic of another thread leaves the map consistent.
        let mut limiters = LIMITERS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(limiters.entry((label, limit)).or_insert_with(|| Arc::new(Semaphore::new(limit))))
    };
    match timeout_at(deadline, limiter.acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Permit(Some(Arc::new(Mutex::new(Some(permit)))))),
        Ok(Err(_)) | Err(_) => Err(TimedOut),
    }
}
