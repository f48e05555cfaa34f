//! Sagas that cannot be driven: parked with the evidence, so that they do not come back for ever.
//!
//! Invariant: parking runs and undoes nothing, and is fenced like every other write.

use std::any::Any;

use super::catch_panic::panic_text;
use super::{Engine, Notification};
use crate::alert::tell_of_stop;
use crate::core::joined;
use crate::metrics;
use crate::record::{Change, Journal, Record, SagaId, Verdict};
use crate::status::Status;

/// A journal that cannot be driven is parked with the evidence; nothing is run or undone.
pub(super) async fn park(engine: &Engine, journal: &Journal, reason: String) -> Option<Notification> {
    let instance = &journal.instance;
    let reason = joined(instance.reason.as_deref(), reason);
    let change = Change {
        status: Status::Paused,
        resume_status: Some(instance.status),
        reason: Some(reason.clone()),
        current_step: instance.current_step,
        unresolved: instance.unresolved,
        steps: Vec::new(),
    };
    let record = Record {
        saga: instance.id,
        epoch: instance.epoch,
        write_no: instance.write_no + 1,
        from: instance.status,
        change,
        release: None,
        rewrite: true,
        turning: false,
    };
    match engine.writer.apply(record).await {
        Ok(Verdict::Applied(_)) => {
            metrics::transition(instance.saga_type.clone(), Status::Paused);
            let (saga_type, business_id) = (&instance.saga_type, &instance.business_id);
            tell_of_stop(instance.id, saga_type, business_id, Status::Paused, Some(&reason));
            Some(Notification::Settled {
                status: Status::Paused,
                step: instance.current_step,
                reason: Some(reason),
            })
        }
        Ok(Verdict::Fenced | Verdict::Refused(_)) | Err(_) => None,
    }
}

/// Parks a saga whose drive panicked outside a step's call, as in `policy` or in the decoding of its
/// input: claimed again, it would only panic again. A step that may have run is asked about when an
/// operator resumes the saga, as after a crash.
pub(super) async fn park_after_panic(
    engine: &Engine,
    id: SagaId,
    epoch: i64,
    panic: Box<dyn Any + Send>,
) -> Option<Notification> {
    let reason = format!("driving it panicked: {}", printable(&panic_text(panic)));
    while !engine.lease.is_revoked() {
        match engine.store.load(&[id]).await {
            Ok(found) => {
                // The store has the state of the saga at the panic; the memory of this driver may be wrong.
                let journal = found.into_iter().next()?;
                let ours = journal.instance.epoch == epoch && journal.instance.status.is_active();
                return if ours { park(engine, &journal, reason).await } else { None };
            }
            Err(error) => {
                tracing::warn!(saga_id = %id, %error, "the worker cannot read a saga whose driver panicked; it tries again");
                tokio::time::sleep(engine.settings.poll).await;
            }
        }
    }
    None
}

/// A reason may quote what could not be stored; it must be storable itself.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(500).collect()
}
