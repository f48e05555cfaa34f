//! A limit on how many runs of one label are in flight.
//!
//! On hot rows, waiting outside the database beats waiting in it: a waiting run holds no connection,
//! no lock and no snapshot.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The runs with the same label and the same limit share a semaphore.
type Rooms = HashMap<(&'static str, usize), Arc<Semaphore>>;

static ROOMS: LazyLock<Mutex<Rooms>> = LazyLock::new(Mutex::default);

/// The deadline passed before there was a place.
#[derive(Debug)]
pub(crate) struct Full;

/// Waits for a place; without a limit there is always one.
pub(crate) async fn enter(
    label: &'static str,
    limit: Option<usize>,
    deadline: Instant,
) -> Result<Option<OwnedSemaphorePermit>, Full> {
    let Some(limit) = limit else { return Ok(None) };
    let limit = limit.min(Semaphore::MAX_PERMITS);
    let room = {
        // The map is whole even if a thread panicked beside it.
        let mut rooms = ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rooms.entry((label, limit)).or_insert_with(|| Arc::new(Semaphore::new(limit))))
    };
    match timeout_at(deadline, room.acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        Ok(Err(_)) | Err(_) => Err(Full),
    }
}
