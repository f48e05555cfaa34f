//! Who waits for which saga. One poll serves all waiters; a saga driven here needs none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::machine::Status;
use crate::record::{Instance, SagaId};

/// What a waiter hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// It came to rest: terminal, stuck, or paused.
    Rested { status: Status, step: u32, reason: Option<String> },
    /// This worker is leaving.
    Draining,
}

impl News {
    pub(crate) fn of(instance: &Instance) -> Option<Self> {
        (!instance.status.is_active()).then(|| Self::Rested {
            status: instance.status,
            step: instance.current_step,
            reason: instance.reason.clone(),
        })
    }
}

#[derive(Default)]
pub(crate) struct Waiters {
    by_saga: Mutex<HashMap<SagaId, watch::Sender<Option<News>>>>,
}

impl Waiters {
    pub(crate) fn subscribe(&self, id: SagaId) -> watch::Receiver<Option<News>> {
        self.lock().entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    pub(crate) fn tell(&self, id: SagaId, news: &News) {
        if let Some(sender) = self.lock().remove(&id) {
            sender.send_replace(Some(news.clone()));
        }
    }

    pub(crate) fn tell_all(&self, news: &News) {
        for (_, sender) in self.lock().drain() {
            sender.send_replace(Some(news.clone()));
        }
    }

    /// The sagas somebody still waits for.
    pub(crate) fn waited_for(&self) -> Vec<SagaId> {
        let mut waiting = self.lock();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SagaId, watch::Sender<Option<News>>>> {
        self.by_saga.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
