//! The notifier tells the callers in this process that wait for a saga when it has come to rest.
//!
//! The driver of a saga in this process notifies its callers. One poll asks the store about all other sagas that a
//! caller waits for.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::Engine;
use crate::error::StoreError;
use crate::record::{Instance, SagaId, Settled};
use crate::status::Status;

/// The most sagas that one call asks about.
const CHUNK: usize = 1024;

/// The message to a waiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notification {
    /// It came to rest: terminal, stuck, or paused.
    Settled { status: Status, step: u32, reason: Option<String> },
    /// This worker is leaving.
    Draining,
}

impl Notification {
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        Settled::of(instance).map(Self::from)
    }
}

impl From<Settled> for Notification {
    fn from(rested: Settled) -> Self {
        let Settled { status, step, reason, .. } = rested;
        Self::Settled { status, step, reason }
    }
}

#[derive(Default)]
pub(crate) struct Notifier {
    by_saga: Mutex<HashMap<SagaId, Vec<oneshot::Sender<Notification>>>>,
}

impl Notifier {
    /// Every later notification is received.
    pub(crate) fn subscribe(&self, id: SagaId) -> oneshot::Receiver<Notification> {
        let (sender, receiver) = oneshot::channel();
        self.lock().entry(id).or_default().push(sender);
        receiver
    }

    pub(crate) fn notify(&self, id: SagaId, news: Notification) {
        let waiting = self.lock().remove(&id);
        notify_each(waiting.unwrap_or_default(), news);
    }

    pub(crate) fn notify_all(&self, news: &Notification) {
        let waiting: Vec<_> = self.lock().drain().collect();
        for (_, waiting) in waiting {
            notify_each(waiting, news.clone());
        }
    }

    /// The sagas that a caller still waits for.
    pub(crate) fn waited_for(&self) -> Vec<SagaId> {
        let mut waiting = self.lock();
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        waiting.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SagaId, Vec<oneshot::Sender<Notification>>>> {
        self.by_saga.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn notify_each(mut waiting: Vec<oneshot::Sender<Notification>>, news: Notification) {
    let last = waiting.pop();
    for sender in waiting {
        // A waiter that is gone does not need its news.
        let _ = sender.send(news.clone());
    }
    if let Some(sender) = last {
        let _ = sender.send(news);
    }
}

/// Tells what became of sagas that other workers drive, by one question for each poll, until the worker stops.
pub(super) async fn watch_others(engine: Arc<Engine>) {
    while engine.pause_unless_stopped(engine.settings.poll).await {
        match AssertUnwindSafe(ask(&engine)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not ask the store for sagas of other workers; it tries again");
            }
            Err(_panic) => {
                tracing::error!(
                    "asking the store for sagas of other workers panicked; the saga worker tries again"
                )
            }
        }
    }
}

async fn ask(engine: &Engine) -> Result<(), StoreError> {
    let elsewhere: Vec<SagaId> =
        engine.notifier.waited_for().into_iter().filter(|id| !engine.is_active(*id)).collect();
    for some in elsewhere.chunks(CHUNK) {
        for rested in engine.store.settled(some).await? {
            engine.notifier.notify(rested.saga, Notification::from(rested));
        }
    }
    Ok(())
}
