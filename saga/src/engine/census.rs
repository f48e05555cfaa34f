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
    loop {
        match AssertUnwindSafe(show(&engine, &mut shown)).catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the open sagas could not be counted"),
            Err(_panic) => tracing::error!("counting the open sagas panicked; they are counted again"),
        }
        if !pause_unless_stopped(&engine, pause).await {
            return;
        }
    }
}

async fn show(engine: &Engine, shown: &mut Shown) -> Result<(), StoreError> {
    let counted = engine.store.census(&engine.runnable()).await?;
    let before = unrunnable(shown);
    for census in shown.values_mut() {
        (census.sagas, census.unrunnable, census.oldest) = (0, 0, Duration::ZERO);
    }
    shown.extend(counted.into_iter().map(|census| ((census.saga_type.clone(), census.status), census)));
    for Census { saga_type, status, sagas, oldest, .. } in shown.values() {
        let labels = [("type", saga_type.clone()), ("status", status.as_str().to_owned())];
        metrics::gauge!("probity_saga_open", &labels).set(small(*sagas));
        metrics::gauge!("probity_saga_oldest_seconds", &labels).set(oldest.as_secs_f64());
    }
    for (saga_type, sagas) in unrunnable(shown) {
        if sagas > 0 && before.get(&saga_type).is_none_or(|before| *before == 0) {
            tracing::warn!(
                saga.r#type = saga_type,
                sagas,
                "sagas wait that no running worker has the definition of: deploy one that registers it"
            );
        }
        metrics::gauge!("probity_saga_unrunnable", "type" => saga_type).set(small(sagas));
    }
    Ok(())
}

/// The number of sagas of each type that wait although nobody can run them.
fn unrunnable(shown: &Shown) -> BTreeMap<String, u64> {
    let mut unrunnable = BTreeMap::new();
    for census in shown.values() {
        *unrunnable.entry(census.saga_type.clone()).or_default() += census.unrunnable;
    }
    unrunnable
}

/// Gauges are floating.
fn small(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
