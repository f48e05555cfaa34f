//! The verdict at the end: the effects must agree with the status of the saga.

use super::instrumented_step::World;
use super::promise::Promise;
use crate::record::{Instance, Journal};
use crate::status::{Status, StepStatus};

/// The broken promise, if there is one. `rested` is the saga before frozen workers went on, `now` is
/// the saga after they did.
pub(super) fn judge(world: &World, rested: Option<&Instance>, now: Option<&Journal>) -> Option<String> {
    let Some((rested, journal)) = rested.zip(now) else {
        return Some("S-7: the saga is lost".into());
    };
    let now = &journal.instance;
    if rested.status.is_active() {
        return Some(format!("S-7: nobody finishes the saga, it is {}", rested.status));
    }
    if (rested.row_version, rested.status) != (now.row_version, now.status) {
        return Some(format!(
            "S-6: a worker that had lost the saga made it {} of {}",
            now.status, rested.status
        ));
    }
    for (at, step) in world.shape.steps.iter().enumerate() {
        let present = world.effect(at).present;
        let row = journal.steps.get(at);
        let broken = match now.status {
            Status::Completed => !present,
            Status::Compensated => present && (step.undo || world.shape.is_final(at)),
            Status::Aborted => present && row.is_none_or(|row| is_over(row.status)),
            _ => false,
        };
        if broken {
            let is = if present { "there" } else { "missing" };
            return Some(format!("S-5: the saga is {}, but the effect of {} is {is}", now.status, step.name));
        }
        if step.local && present != row.is_some_and(|row| is_on_record(row.status)) {
            let is = if present { "there" } else { "missing" };
            return Some(format!(
                "S-9: the effect of the local step {} is {is}, and its record says otherwise",
                step.name
            ));
        }
        let undone = row.is_some_and(|row| row.status == StepStatus::Compensated);
        if undone && row.is_none_or(|row| row.evidence.as_deref().unwrap_or_default().trim().is_empty()) {
            return Some(format!("S-5: {} is compensated without evidence", step.name));
        }
    }
    let kept = match world.promised() {
        Some(Promise::TurnsForCertain) => now.status != Status::Completed,
        Some(Promise::Turns) => now.status != Status::Completed || now.cancelled_too_late().is_some(),
        Some(Promise::Pauses) | None => true,
    };
    if !kept {
        return Some(format!(
            "S-8: the saga was asked to turn back, and is {} without a word of it",
            now.status
        ));
    }
    let waiting = matches!(now.status, Status::Stuck | Status::Paused);
    (waiting && now.reason.is_none()).then(|| format!("S-8: the saga is {} without a reason", now.status))
}

/// Tells whether the row of a local step says that its effect is there.
fn is_on_record(status: StepStatus) -> bool {
    matches!(status, StepStatus::Succeeded | StepStatus::Compensating | StepStatus::CompensationFailed)
}

/// Tells whether the row of a step says that nothing of it is there.
fn is_over(status: StepStatus) -> bool {
    matches!(status, StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated)
}
