//! Gauges of the open sagas of a database, whoever drives them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::Engine;
use super::worker::pause_unless_stopped;
use crate::error::StoreError;
use crate::machine::Status;
use crate::record::Census;

/// Rare: it looks at every open saga.
const PAUSE: Duration = Duration::from_secs(15);

/// What was last shown: what is there no more is shown as none.
type Shown = BTreeMap<(String, Status), Census>;

pub(super) async fn count(engine: Arc<Engine>) {
    let mut shown = Shown::new();
    let pause = engine.settings.poll.max(PAUSE);
    while pause_unless_stopped(&engine, pause).await {
        match AssertUnwindSafe(show(&engine, &mut shown)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the open sagas could not be counted"),
            Err(_panic) => tracing::error!("counting the open sagas panicked; they are counted again"),
        }
    }
}

async fn show(engine: &Engine, shown: &mut Shown) -> Result<(), StoreError> {
    let counted = engine.store.census(&engine.runnable()).await?;
    for census in shown.values_mut() {
        (census.sagas, census.unrunnable, census.oldest) = (0, 0, Duration::ZERO);
    }
    shown.extend(counted.into_iter().map(|census| ((census.saga_type.clone(), census.status), census)));
    let mut unrunnable: BTreeMap<&str, u64> = BTreeMap::new();
    for Census { saga_type, status, sagas, oldest, unrunnable: here } in shown.values() {
        let labels = [("type", saga_type.clone()), ("status", status.as_str().to_owned())];
        metrics::gauge!("probity_saga_open", &labels).set(small(*sagas));
        metrics::gauge!("probity_saga_oldest_seconds", &labels).set(oldest.as_secs_f64());
        *unrunnable.entry(saga_type.as_str()).or_default() += here;
    }
    for (saga_type, sagas) in unrunnable {
        metrics::gauge!("probity_saga_unrunnable", "type" => saga_type.to_owned()).set(small(sagas));
    }
    Ok(())
}

/// Gauges are floating.
fn small(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
