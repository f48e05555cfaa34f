//! Requests of operators reach sagas that are tried again and again here.
//!
//! A driver gets a request with the answer to its next write, and between two tries it writes nothing. While a driver
//! of this worker is between tries, one query per poll reads the requests of all its sagas.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::Engine;
use crate::error::StoreError;
use crate::record::{Requests, SagaId};

/// The requests that stand, as of the last query.
#[derive(Default)]
pub(crate) struct OperatorRequests {
    /// The number of drivers that are between the first failure of a step and its last try.
    trying: AtomicUsize,
    told: watch::Sender<BTreeMap<SagaId, Requests>>,
}

/// Held by a driver while a step is tried again.
pub(super) struct Trying<'a>(&'a OperatorRequests);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.0.trying.fetch_sub(1, Ordering::AcqRel);
    }
}

impl OperatorRequests {
    pub(super) fn trying(&self) -> Trying<'_> {
        self.trying.fetch_add(1, Ordering::AcqRel);
        Trying(self)
    }

    /// Says if this saga is asked to stop, or, with `cancel`, to turn back.
    pub(super) fn stands(&self, saga: SagaId, cancel: bool) -> bool {
        is_heeded(&self.told.borrow(), saga, cancel)
    }

    /// Returns when this saga is asked to stop, or, with `cancel`, to turn back.
    pub(super) async fn wait(&self, saga: SagaId, cancel: bool) {
        let mut told = self.told.subscribe();
        if told.wait_for(|told| is_heeded(told, saga, cancel)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Corrects what the last query told of a saga by what a later answer of the store says: a request that was served
    /// and still seemed to stand would end every wait at once.
    pub(super) fn correct(&self, saga: SagaId, requests: &Requests) {
        if self.told.borrow().get(&saga).is_none_or(|told| told == requests) {
            return;
        }
        self.told.send_if_modified(|told| match (requests.pause, &requests.cancel) {
            (false, None) => told.remove(&saga).is_some(),
            _ => told.insert(saga, requests.clone()).is_some(),
        });
    }

    fn update(&self, now: BTreeMap<SagaId, Requests>) {
        self.told.send_if_modified(|told| {
            let differs = *told != now;
            *told = now;
            differs
        });
    }
}

fn is_heeded(told: &BTreeMap<SagaId, Requests>, saga: SagaId, cancel: bool) -> bool {
    told.get(&saga).is_some_and(|asked| asked.pause || (cancel && asked.cancel.is_some()))
}

pub(super) async fn listen_for_requests(engine: Arc<Engine>) {
    while engine.pause_unless_stopped(engine.settings.poll).await {
        match AssertUnwindSafe(ask(&engine)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not read the requests of operators; it tries again")
            }
            Err(_panic) => {
                tracing::error!("reading the requests of operators panicked; the saga worker tries again")
            }
        }
    }
}

async fn ask(engine: &Engine) -> Result<(), StoreError> {
    let asked = &engine.requests;
    let now = match asked.trying.load(Ordering::Acquire) {
        0 => Vec::new(),
        _ => engine.store.asked(engine.worker).await?,
    };
    asked.update(now.into_iter().collect());
    Ok(())
}
