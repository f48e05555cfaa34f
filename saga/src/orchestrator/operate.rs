//! The verbs of a person who operates a saga. Every decision is written together with its audit row.
//!
//! Invariant: a decision applies to what the operator saw. If the saga has moved since then it is
//! [`SagaError::Stale`], and nothing is written.

use serde::Serialize;

use super::{Orchestrator, SagaView};
use crate::codec::Place;
use crate::core::{self, Resolution, State, Trigger, VerbError, transition};
use crate::definition::Saga;
use crate::error::SagaError;
use crate::metrics;
use crate::record::{Change, Document, Instance, Intervened, Intervention};
use crate::status::Status;

/// An orchestrator in the hands of a named person; see [`Orchestrator::operator`].
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing until a verb is called"]
pub struct Operator {
    orchestrator: Orchestrator,
    actor: String,
    seen: Option<i64>,
}

/// The answer of [`Operator::cancel`] and [`Operator::compensate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a running saga may still finish before it turns back"]
pub enum Cancelled {
    /// It is turned back: no step of it goes forward any more.
    ForCertain,
    /// It runs, or has to find out about its pivot, and its driver was asked. It turns back with its next result,
    /// unless that result completes it or passes its pivot, or it is unknown whether the pivot has happened:
    /// [`Orchestrator::wait`] tells, and [`Instance::cancelled_too_late`](crate::store::Instance::cancelled_too_late).
    Requested,
}

/// The request of a verb to the store.
#[derive(Default)]
struct Decision {
    change: Option<Change>,
    unless_driven: bool,
    cancel: Option<String>,
    pause: bool,
}

impl Orchestrator {
    /// The verbs of operators, in the name of `actor`, which every audit row keeps.
    pub fn operator(&self, actor: impl Into<String>) -> Operator {
        Operator { orchestrator: self.clone(), actor: actor.into(), seen: None }
    }
}

impl Operator {
    /// Decide only if the saga still has the `row_version` that a screen showed.
    pub fn having_seen(mut self, row_version: i64) -> Self {
        self.seen = Some(row_version);
        self
    }

    /// Lets a stuck saga try again, with fresh retries. An earlier request to turn back still stands: such a saga only asks
    /// again what became of its pivot.
    ///
    /// # Cancel safety
    /// The decision may or may not have been written; look at the saga.
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not stuck, [`SagaError::Stale`] if it moved.
    pub async fn retry_now(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        self.decide("retry_now", saga, business_id, reason, |state, plan| core::retry(state, &plan.shape))
            .await
    }

    /// Lets a paused saga go on where it stood. An earlier request to turn back still stands.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not paused, [`SagaError::Stale`] if it moved.
    pub async fn resume(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        self.decide("resume", saga, business_id, reason, |state, plan| core::resume(state, &plan.shape)).await
    }

    /// Settles an open step by what the operator found out, and lets the saga go on: a step that
    /// did not happen turns the saga back; past the pivot, where there is no way back, it is tried again, with the
    /// same key. `evidence` says where a second person can see it.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if the saga is not stopped, the step is not open, or its output is above
    /// the limit of 1 MiB or not one that the step can have.
    pub async fn resolve_step(
        &self,
        saga: &str,
        business_id: &str,
        step: u32,
        resolution: Resolution,
        evidence: &str,
    ) -> Result<(), SagaError> {
        let (actor, sealer) = (self.actor.clone(), &self.orchestrator.handle.engine.sealer);
        let settle = |state: &mut State, plan: &Saga| {
            let at = plan.steps.get((step as usize).wrapping_sub(1)).ok_or(VerbError::NoStep(step))?;
            let resolution = match resolution {
                Resolution::Applied(output) => {
                    let wrong = |why| VerbError::WrongOutput { step: at.name(), why };
                    at.check_output(&output).map_err(wrong)?;
                    let place = Place { saga_type: saga, saga: state.saga, output_of: Some(at.name()) };
                    let sealed = sealer.seal_plain(&place, output);
                    Resolution::Applied(sealed.map_err(|error| VerbError::Unstorable(error.to_string()))?)
                }
                other => other,
            };
            core::resolve(state, &plan.shape, step, resolution, evidence, &actor)
        };
        self.decide("resolve_step", saga, business_id, evidence, settle).await
    }

    /// Turns a saga back: at once if it is stopped, with its next result if it runs. The answer tells which. A saga
    /// that is already undoing, or undone, stays as it is.
    ///
    /// A pivot that may have happened is probed before any step is undone, also if the saga is stopped: the answer is
    /// then [`Cancelled::Requested`]. If the pivot has happened the saga goes forward; if that is unknown, it is stuck.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] past the pivot and after the end.
    pub async fn compensate(
        &self,
        saga: &str,
        business_id: &str,
        reason: &str,
    ) -> Result<Cancelled, SagaError> {
        self.turn_back("compensate", saga, business_id, reason).await
    }

    /// Does the same as [`compensate`](Self::compensate), for callers who think of it as a cancellation.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// The errors of [`compensate`](Self::compensate).
    pub async fn cancel(&self, saga: &str, business_id: &str, reason: &str) -> Result<Cancelled, SagaError> {
        self.turn_back("cancel", saga, business_id, reason).await
    }

    /// Stops a saga: at once if no worker drives it, also if no worker has its definition any more; else after the
    /// current result of its driver, which must be alive to see the request.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is stopped already.
    pub async fn pause(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let status = view.instance.status;
        if status == Status::Paused {
            return Ok(());
        }
        if !status.is_active() {
            return Err(refused("pause", format!("it is {status}, which stands still already")));
        }
        // The store's clock says whether a worker drives it.
        let stop =
            Decision { change: Some(self.stop(&view, reason)), unless_driven: true, ..Decision::default() };
        match self.write("pause", &view, reason, stop).await {
            Err(SagaError::Stale) => {
                let asked = Decision { pause: true, ..Decision::default() };
                self.write("pause", &view, reason, asked).await
            }
            stopped => stopped,
        }
    }

    /// Not through `State`: its definition may be gone. The driver that resumes it takes the next step for started.
    fn stop(&self, view: &SagaView, reason: &str) -> Change {
        let Instance { status, reason: before, current_step, unresolved, .. } = &view.instance;
        let said = format!("paused by {}: {reason}", self.actor);
        Change {
            status: Status::Paused,
            resume_status: Some(*status),
            reason: Some(core::joined(before.as_deref(), said)),
            current_step: *current_step,
            unresolved: *unresolved,
            steps: Vec::new(),
        }
    }

    /// Closes a stuck or paused saga, with its open effects on record. It is never called compensated.
    ///
    /// # Cancel safety
    /// The same as for [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not stuck or paused.
    pub async fn abort(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let said = format!("closed by {}: {reason}", self.actor);
        let closed = self.change("abort", &view, |state, plan| core::abort(state, &plan.shape, said.clone()));
        let change = match closed {
            Ok(change) => change,
            // A journal that cannot be read, or whose definition is gone, must still be closable.
            Err(_) => close_unread(&view.instance, said)?,
        };
        self.write("abort", &view, reason, Decision { change: Some(change), ..Decision::default() }).await
    }

    async fn turn_back(
        &self,
        verb: &'static str,
        saga: &str,
        business_id: &str,
        reason: &str,
    ) -> Result<Cancelled, SagaError> {
        let view = self.look(saga, business_id).await?;
        let said = format!("{verb} by {}: {reason}", self.actor);
        match view.instance.status {
            Status::Compensating | Status::Compensated => Ok(Cancelled::ForCertain),
            Status::Pending | Status::InProgress => {
                let asked = Decision { cancel: Some(said), ..Decision::default() };
                self.write(verb, &view, reason, asked).await.map(|()| Cancelled::Requested)
            }
            Status::Stuck | Status::Paused => {
                let mut in_doubt = false;
                let turn = |state: &mut State, plan: &Saga| {
                    in_doubt = state.pivot_in_doubt(&plan.shape).is_some();
                    match in_doubt {
                        true => core::find_out(state, &plan.shape),
                        false => core::compensate(state, &plan.shape, said.clone()),
                    }
                };
                let change = Some(self.change(verb, &view, turn)?);
                let cancel = in_doubt.then_some(said);
                let decided = Decision { change, cancel, ..Decision::default() };
                let answer = if in_doubt { Cancelled::Requested } else { Cancelled::ForCertain };
                self.write(verb, &view, reason, decided).await.map(|()| answer)
            }
            status @ (Status::Committing | Status::Completed | Status::Aborted) => Err(refused(
                verb,
                format!("it is {status}; start a saga of its own that takes the effect back"),
            )),
        }
    }

    async fn decide(
        &self,
        verb: &'static str,
        saga: &str,
        business_id: &str,
        reason: &str,
        decision: impl FnOnce(&mut State, &Saga) -> Result<Change, VerbError>,
    ) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let change = self.change(verb, &view, decision)?;
        self.write(verb, &view, reason, Decision { change: Some(change), ..Decision::default() }).await
    }

    fn change(
        &self,
        verb: &'static str,
        view: &SagaView,
        decision: impl FnOnce(&mut State, &Saga) -> Result<Change, VerbError>,
    ) -> Result<Change, SagaError> {
        let instance = &view.instance;
        let plan = self.orchestrator.handle.engine.plan(&instance.saga_type, &instance.definition);
        let plan = plan.ok_or_else(|| {
            refused(verb, "this process has not registered the definition the saga was started with".into())
        })?;
        let mut state =
            State::load(&plan.shape, view, false).map_err(|corrupt| refused(verb, corrupt.to_string()))?;
        decision(&mut state, &plan).map_err(|error| refused(verb, error.to_string()))
    }

    async fn look(&self, saga: &str, business_id: &str) -> Result<SagaView, SagaError> {
        let view = self
            .orchestrator
            .get(saga, business_id)
            .await?
            .ok_or_else(|| SagaError::NoSuchSaga { saga: saga.into(), business_id: business_id.into() })?;
        if self.seen.is_some_and(|seen| seen != view.instance.row_version) {
            return Err(SagaError::Stale);
        }
        Ok(view)
    }

    async fn write(
        &self,
        verb: &'static str,
        view: &SagaView,
        reason: &str,
        decision: Decision,
    ) -> Result<(), SagaError> {
        if self.actor.trim().is_empty() || reason.trim().is_empty() {
            return Err(refused(verb, "say who decides, and why or by what evidence: it is audited".into()));
        }
        let changed = decision.change.as_ref().map(|change| change.status);
        let intervention = Intervention {
            saga: view.instance.id,
            row_version: view.instance.row_version,
            change: decision.change,
            unless_driven: decision.unless_driven,
            request_cancel: decision.cancel,
            request_pause: decision.pause,
            actor: self.actor.clone(),
            action: verb.into(),
            reason: reason.into(),
            before: view.instance.status,
        };
        metrics::operator_decided(verb);
        match self.orchestrator.handle.engine.intervene(intervention).await? {
            Intervened::Applied => {
                if let Some(to) = changed {
                    metrics::transition(view.instance.saga_type.clone(), to);
                }
                Ok(())
            }
            Intervened::Stale => Err(SagaError::Stale),
        }
    }
}

impl Resolution {
    /// The step happened, with this output.
    ///
    /// # Errors
    /// If the output cannot be encoded.
    pub fn applied<T: Serialize>(output: &T) -> Result<Self, serde_json::Error> {
        Document::encode(output).map(Self::Applied)
    }
}

fn close_unread(instance: &Instance, said: String) -> Result<Change, SagaError> {
    let status = transition(instance.status, instance.resume_status, Trigger::Aborted)
        .map_err(|illegal| refused("abort", format!("{illegal}; pause it first")))?;
    let said = format!("{said}; its journal could not be read here: its next step may have been started");
    Ok(Change {
        status,
        resume_status: None,
        reason: Some(core::joined(instance.reason.as_deref(), said)),
        current_step: instance.current_step,
        unresolved: instance.unresolved,
        steps: Vec::new(),
    })
}

fn refused(verb: &'static str, why: String) -> SagaError {
    SagaError::Refused { verb, why }
}
