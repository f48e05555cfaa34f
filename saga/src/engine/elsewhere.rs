//! What happens to sagas that other workers drive: one poll tells all who wait for them here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::worker::pause_unless_stopped;
use super::{Engine, News};
use crate::error::StoreError;
use crate::record::SagaId;

/// The most sagas that one call asks about.
const CHUNK: usize = 1024;

pub(super) async fn listen(engine: Arc<Engine>) {
    while pause_unless_stopped(&engine, engine.settings.poll).await {
        match AssertUnwindSafe(ask(&engine)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not ask what became of sagas elsewhere");
            }
            Err(_panic) => {
                tracing::error!("asking what became of sagas elsewhere panicked; it is asked again")
            }
        }
    }
}

async fn ask(engine: &Engine) -> Result<(), StoreError> {
    let elsewhere: Vec<SagaId> =
        engine.waiters.waited_for().into_iter().filter(|id| !engine.is_active(*id)).collect();
    for some in elsewhere.chunks(CHUNK) {
        for rested in engine.store.rested(some).await? {
            engine.waiters.tell(rested.saga, News::from(rested));
        }
    }
    Ok(())
}
