//! Who waits for which saga. One poll serves all waiters; a saga driven here needs none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::machine::Status;
use crate::record::{Instance, Rested, SagaId};

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
        Rested::of(instance).map(Self::from)
    }
}

impl From<Rested> for News {
    fn from(rested: Rested) -> Self {
        let Rested { status, step, reason, .. } = rested;
        Self::Rested { status, step, reason }
    }
}

#[derive(Default)]
pub(crate) struct Waiters {
    by_saga: Mutex<HashMap<SagaId, Vec<oneshot::Sender<News>>>>,
}

impl Waiters {
    /// Everything told from now on is heard.
    pub(crate) fn subscribe(&self, id: SagaId) -> oneshot::Receiver<News> {
        let (sender, receiver) = oneshot::channel();
        self.lock().entry(id).or_default().push(sender);
        receiver
    }

    pub(crate) fn tell(&self, id: SagaId, news: News) {
        let waiting = self.lock().remove(&id);
        tell_each(waiting.unwrap_or_default(), news);
    }

    pub(crate) fn tell_all(&self, news: &News) {
        let waiting: Vec<_> = self.lock().drain().collect();
        for (_, waiting) in waiting {
            tell_each(waiting, news.clone());
        }
    }

    /// The sagas somebody still waits for.
    pub(crate) fn waited_for(&self) -> Vec<SagaId> {
        let mut waiting = self.lock();
        waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        waiting.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SagaId, Vec<oneshot::Sender<News>>>> {
        self.by_saga.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_each(mut waiting: Vec<oneshot::Sender<News>>, news: News) {
    let last = waiting.pop();
    for sender in waiting {
        // A waiter that is gone does not need its news.
        let _ = sender.send(news.clone());
    }
    if let Some(sender) = last {
        let _ = sender.send(news);
    }
}
