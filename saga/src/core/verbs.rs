//! The verbs of operators for a stopped saga, as pure changes.
//!
//! Invariant: a verb never invents an effect. It lets the machine go on, turns it back, settles a
//! step with evidence, or closes the saga with its open effects on record.

use super::{Illegal, Shape, State, Trigger};
use crate::record::{Change, Document};
use crate::status::{Status, StepStatus};

/// The finding of an operator about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It happened, with this output, in plain JSON.
    Applied(Document),
    /// It did not happen, and no request for it is still on its way.
    NotApplied,
    /// It was undone by hand.
    Compensated,
}

/// The reason for which a verb does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerbError {
    #[error(transparent)]
    Illegal(#[from] Illegal),
    #[error("its pivot may have happened: the pivot is probed first")]
    PivotInDoubt,
    #[error("there is no step {0}")]
    NoStep(u32),
    #[error("the output cannot be stored: {0}")]
    Unstorable(String),
    #[error("step {order} is {status}: only an open step can be resolved this way")]
    Settled { order: u32, status: StepStatus },
    #[error("the output is not one of {step}: {why}")]
    WrongOutput { step: &'static str, why: String },
}

/// Lets a stuck saga try again, with fresh retries.
pub(crate) fn retry(state: &mut State, shape: &Shape) -> Result<Change, VerbError> {
    state.apply(Trigger::Retried)?;
    let mut written = Vec::new();
    for (at, row) in state.rows.iter_mut().enumerate() {
        let Some(row) = row else { continue };
        match row.status {
            StepStatus::CompensationFailed => {
                (row.status, row.undo_retries) = (StepStatus::Compensating, 0);
            }
            StepStatus::Compensating => row.undo_retries = 0,
            StepStatus::Unknown | StepStatus::Executing | StepStatus::Failed => row.retries = 0,
            _ => continue,
        }
        written.push(at);
    }
    Ok(state.change(shape, &written))
}

/// Lets a paused saga go on where it stood.
pub(crate) fn resume(state: &mut State, shape: &Shape) -> Result<Change, VerbError> {
    state.apply(Trigger::Resumed)?;
    Ok(state.change(shape, &[]))
}

/// Settles one open step with evidence, and lets the saga go on.
pub(crate) fn resolve(
    state: &mut State,
    shape: &Shape,
    order: u32,
    resolution: Resolution,
    evidence: &str,
    actor: &str,
) -> Result<Change, VerbError> {
    state.apply(if state.status == Status::Paused { Trigger::Resumed } else { Trigger::Retried })?;
    let at = (order as usize).wrapping_sub(1);
    let row = state.rows.get_mut(at).and_then(Option::as_mut).ok_or(VerbError::NoStep(order))?;
    let open = match row.status {
        StepStatus::Unknown
        | StepStatus::Executing
        | StepStatus::Compensating
        | StepStatus::CompensationFailed => true,
        // The step is still to be undone, and its undo may have stopped the saga; or it is a pivot, which only a person undoes.
        StepStatus::Succeeded => {
            (shape.steps[at].undo || shape.is_final(at)) && resolution == Resolution::Compensated
        }
        StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated => false,
    };
    // An effect that is known to have happened can only be settled by its undo.
    let fits = match resolution {
        Resolution::Compensated => state.status == Status::Compensating,
        Resolution::Applied(_) | Resolution::NotApplied => row.output.is_none(),
    };
    if !open || !fits {
        return Err(VerbError::Settled { order, status: row.status });
    }
    (row.status, row.output) = match resolution {
        Resolution::Applied(output) => (StepStatus::Succeeded, Some(output)),
        Resolution::NotApplied => (StepStatus::Failed, None),
        Resolution::Compensated => (StepStatus::Compensated, row.output.take()),
    };
    row.retry_in = None;
    row.evidence = Some(evidence.into());
    row.resolved_by = Some(actor.into());
    let succeeded = row.status == StepStatus::Succeeded;
    if succeeded && shape.steps[at].pivot && state.status == Status::InProgress {
        state.apply(Trigger::PivotPassed)?;
    }
    // The saga turned back before this was known, and stops here.
    if succeeded && shape.is_final(at) && state.status == Status::Compensating {
        state.settled(shape, Trigger::Halted)?;
    }
    Ok(state.change(shape, &[at]))
}

/// Turns back a saga that stopped before its pivot.
pub(crate) fn compensate(state: &mut State, shape: &Shape, reason: String) -> Result<Change, VerbError> {
    if state.pivot_in_doubt(shape).is_some() {
        return Err(VerbError::PivotInDoubt);
    }
    Ok(state.turned(shape, reason)?)
}

/// Resumes a saga that stopped with its pivot in doubt, so that its driver probes the pivot. It is for a saga that is
/// also asked to turn back: its driver starts no step before it knows.
pub(crate) fn find_out(state: &mut State, shape: &Shape) -> Result<Change, VerbError> {
    if state.status == Status::Paused { resume(state, shape) } else { retry(state, shape) }
}

/// Closes a stopped saga. Its open effects stay on record.
pub(crate) fn abort(state: &mut State, shape: &Shape, reason: String) -> Result<Change, VerbError> {
    Ok(state.closed(shape, reason)?)
}
