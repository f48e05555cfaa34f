//! Gauges of the open sagas of a database, those of other workers as well.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::Engine;
use crate::error::StoreError;
use crate::metrics;
use crate::record::OpenCounts;
use crate::status::Status;

/// Rare: it looks at every open saga.
const PAUSE: Duration = Duration::from_secs(15);

/// The counts that were last shown. A count that is there no more is shown as none.
type Shown = BTreeMap<(String, Status), OpenCounts>;

/// Shows the open sagas of the database until the worker stops.
pub(super) async fn show_open_sagas(engine: Arc<Engine>) {
    let mut shown = Shown::new();
    let pause = engine.settings.poll.max(PAUSE);
    loop {
        match AssertUnwindSafe(show(&engine, &mut shown)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the saga worker could not count the open sagas; it tries again")
            }
            Err(_panic) => tracing::error!("counting the open sagas panicked; the saga worker tries again"),
        }
        if !engine.pause_unless_stopped(pause).await {
            return;
        }
    }
}

async fn show(engine: &Engine, shown: &mut Shown) -> Result<(), StoreError> {
    let counted = engine.store.open_counts(&engine.runnable()).await?;
    let before = unrunnable(shown);
    for census in shown.values_mut() {
        (census.sagas, census.unrunnable, census.oldest) = (0, 0, Duration::ZERO);
    }
    shown.extend(counted.into_iter().map(|census| ((census.saga_type.clone(), census.status), census)));
    for OpenCounts { saga_type, status, sagas, oldest, .. } in shown.values() {
        metrics::open_sagas(saga_type, *status, *sagas, *oldest);
    }
    for (saga_type, sagas) in unrunnable(shown) {
        if sagas > 0 && before.get(&saga_type).is_none_or(|before| *before == 0) {
            tracing::warn!(
                saga_type,
                sagas,
                "no running worker has the definition of these sagas; deploy one that registers it"
            );
        }
        metrics::unrunnable_sagas(saga_type, sagas);
    }
    Ok(())
}

/// The number of sagas of each type that wait although no worker can run them.
fn unrunnable(shown: &Shown) -> BTreeMap<String, u64> {
    let mut unrunnable = BTreeMap::new();
    for census in shown.values() {
        *unrunnable.entry(census.saga_type.clone()).or_default() += census.unrunnable;
    }
    unrunnable
}
