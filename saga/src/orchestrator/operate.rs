//! What a person may do to a saga. Every decision is written together with its audit row.
//!
//! Invariant: a decision applies to what the operator saw. If the saga moved meanwhile it is
//! [`SagaError::Stale`], and nothing is written.

use serde::Serialize;

use super::{Orchestrator, SagaView};
use crate::codec::Place;
use crate::error::SagaError;
use crate::machine::{self, Resolution, Shape, State, Status, Trigger, VerbError, transition};
use crate::record::{Change, Document, Intervened, Intervention};

/// An orchestrator in the hands of a named person; see [`Orchestrator::operator`].
#[derive(Debug, Clone)]
#[must_use = "an operator does nothing until a verb is called"]
pub struct Operator {
    orchestrator: Orchestrator,
    actor: String,
    seen: Option<i64>,
}

/// What [`Operator::cancel`] and [`Operator::compensate`] could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a running saga may still finish before it turns back"]
pub enum Cancelled {
    /// It is turned back: no step of it goes forward any more.
    ForCertain,
    /// It runs, and its driver was asked. It turns back with its next result, unless that result
    /// completes it or passes its pivot: [`Orchestrator::wait`] tells, and
    /// [`Instance::cancelled_too_late`](crate::Instance::cancelled_too_late).
    Requested,
}

/// What a verb asks of the store.
#[derive(Default)]
struct Decision {
    change: Option<Change>,
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

    /// Lets a stuck saga try again, with fresh retries.
    ///
    /// # Cancel safety
    /// The decision may or may not have been written; look at the saga.
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not stuck, [`SagaError::Stale`] if it moved.
    pub async fn retry_now(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        self.decide("retry_now", saga, business_id, reason, machine::retry).await
    }

    /// Lets a paused saga go on where it stood.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not paused, [`SagaError::Stale`] if it moved.
    pub async fn resume(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        self.decide("resume", saga, business_id, reason, machine::resume).await
    }

    /// Settles an open step by what the operator found out, and lets the saga go on: a step that
    /// did not happen turns the saga back. `evidence` says where a second person can see it.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if the saga is not stopped, the step is not open, or its output is above
    /// the limit of 1 MiB.
    pub async fn resolve_step(
        &self,
        saga: &str,
        business_id: &str,
        step: u32,
        resolution: Resolution,
        evidence: &str,
    ) -> Result<(), SagaError> {
        let (actor, sealer) = (self.actor.clone(), &self.orchestrator.handle.engine.sealer);
        let settle = |state: &mut State, shape: &Shape| {
            let name = shape.steps.get((step as usize).wrapping_sub(1)).map(|step| step.name);
            let resolution = match resolution {
                Resolution::Applied(output) => {
                    let place = Place { saga_type: saga, saga: state.saga, output_of: name };
                    let sealed = sealer.seal_plain(&place, output);
                    Resolution::Applied(sealed.map_err(|error| VerbError::Unstorable(error.to_string()))?)
                }
                other => other,
            };
            machine::resolve(state, shape, step, resolution, evidence, &actor)
        };
        self.decide("resolve_step", saga, business_id, evidence, settle).await
    }

    /// Turns a saga back: at once if it stands still, with its next result if it runs; the answer says
    /// which. A saga that is already undoing, or undone, stays as it is.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
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

    /// As [`compensate`](Self::compensate), for callers who think of it as a cancellation.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// As [`compensate`](Self::compensate).
    pub async fn cancel(&self, saga: &str, business_id: &str, reason: &str) -> Result<Cancelled, SagaError> {
        self.turn_back("cancel", saga, business_id, reason).await
    }

    /// Stops a running saga after its current result.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it does not run.
    pub async fn pause(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let status = view.instance.status;
        if status == Status::Paused {
            return Ok(());
        }
        if !status.is_active() {
            return Err(refused("pause", format!("it is {status}, which stands still already")));
        }
        self.write("pause", &view, reason, Decision { pause: true, ..Decision::default() }).await
    }

    /// Closes a stuck or paused saga, with its open effects on record. It is never called compensated.
    ///
    /// # Cancel safety
    /// As [`retry_now`](Self::retry_now).
    ///
    /// # Errors
    /// [`SagaError::Refused`] if it is not stuck or paused.
    pub async fn abort(&self, saga: &str, business_id: &str, reason: &str) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let instance = &view.instance;
        // Not through `State`: a journal that cannot be read must still be closable.
        let status = transition(instance.status, instance.resume_status, Trigger::Aborted)
            .map_err(|illegal| refused("abort", illegal.to_string()))?;
        let change = Change {
            status,
            resume_status: None,
            reason: Some(match &instance.reason {
                Some(before) => format!("{before}; closed by {}: {reason}", self.actor),
                None => format!("closed by {}: {reason}", self.actor),
            }),
            current_step: instance.current_step,
            unresolved: instance.unresolved,
            steps: Vec::new(),
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
                let turn = |state: &mut State, shape: &Shape| machine::compensate(state, shape, said);
                let change = self.change(verb, &view, turn)?;
                let decided = Decision { change: Some(change), ..Decision::default() };
                self.write(verb, &view, reason, decided).await.map(|()| Cancelled::ForCertain)
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
        decision: impl FnOnce(&mut State, &Shape) -> Result<Change, VerbError>,
    ) -> Result<(), SagaError> {
        let view = self.look(saga, business_id).await?;
        let change = self.change(verb, &view, decision)?;
        self.write(verb, &view, reason, Decision { change: Some(change), ..Decision::default() }).await
    }

    fn change(
        &self,
        verb: &'static str,
        view: &SagaView,
        decision: impl FnOnce(&mut State, &Shape) -> Result<Change, VerbError>,
    ) -> Result<Change, SagaError> {
        let instance = &view.instance;
        let plan = self.orchestrator.handle.engine.plan(&instance.saga_type, &instance.definition);
        let plan = plan.ok_or_else(|| {
            refused(verb, "this process has not registered the definition the saga was started with".into())
        })?;
        let mut state =
            State::load(&plan.shape, view, false).map_err(|corrupt| refused(verb, corrupt.to_string()))?;
        decision(&mut state, &plan.shape).map_err(|error| refused(verb, error.to_string()))
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
        let intervention = Intervention {
            saga: view.instance.id,
            row_version: view.instance.row_version,
            change: decision.change,
            request_cancel: decision.cancel,
            request_pause: decision.pause,
            actor: self.actor.clone(),
            action: verb.into(),
            reason: reason.into(),
            before: view.instance.status,
        };
        metrics::counter!("probity_saga_admin_actions_total", "action" => verb).increment(1);
        match self.orchestrator.handle.engine.intervene(intervention).await? {
            Intervened::Applied => Ok(()),
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

fn refused(verb: &'static str, why: String) -> SagaError {
    SagaError::Refused { verb, why }
}
