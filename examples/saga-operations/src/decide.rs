//! Decisions of operators about one saga.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use probity_saga::store::{Document, StepRow};
use probity_saga::{Cancelled, Resolution, SagaError, SagaView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_shell::{Currency, Id, Json, Money, Operator, Problem, text_enum};
use utoipa::ToSchema;

use crate::view::is_open;
use crate::{Operations, pending, refused, verbs_for};

text_enum! {
    /// A decision about a saga.
    pub enum Verb {
        /// Lets a stuck saga try again.
        Retry = "retry",
        /// Lets a paused saga go on.
        Resume = "resume",
        /// Stops a saga that runs.
        Pause = "pause",
        /// Turns a saga back.
        Compensate = "compensate",
        /// Closes a saga as it stands.
        Abort = "abort",
        /// Settles an open step.
        Resolve = "resolve",
    }
}

impl Verb {
    /// One sentence for the operator who has to choose.
    #[must_use]
    pub fn does(self) -> &'static str {
        match self {
            Verb::Retry => {
                "tries the open step again, with fresh retries and the same key, so no effect is doubled"
            }
            Verb::Resume => "goes on where the saga was paused",
            Verb::Pause => "stops the saga after the result it waits for; nothing is undone",
            Verb::Compensate => {
                "undoes the steps that happened, in reverse order; impossible after the pivot"
            }
            Verb::Abort => "closes the saga as it stands, with its open effects on record; nothing is undone",
            Verb::Resolve => {
                "says what became of an open step: send step, outcome (applied, not_applied, or compensated), and the evidence as \
                 reason"
            }
        }
    }

    /// Returns true if the decision says what became of money: above an amount it takes two operators.
    #[must_use]
    pub fn settles(self) -> bool {
        matches!(self, Verb::Compensate | Verb::Abort | Verb::Resolve)
    }
}

/// The body of a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The version of the saga that the operator saw.
    pub row_version: i64,
    /// The reason, or the evidence of `resolve`; kept in the audit.
    pub reason: String,
    /// The step that `resolve` settles, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// `applied`, `not_applied` or `compensated`, for `resolve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The output of a step that was applied, as the step itself would have returned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

text_enum! {
    /// The operator's finding about an open step.
    pub enum Outcome {
        /// Its effect happened.
        Applied = "applied",
        /// Its effect did not happen, and cannot happen any more.
        NotApplied = "not_applied",
        /// Its effect happened, and a person undid it.
        Compensated = "compensated",
    }
}

/// Refuses a reason that tells a later reader nothing.
pub(crate) fn check_reason(reason: &str) -> Result<(), Problem> {
    if reason.trim().is_empty() || reason.chars().any(char::is_control) {
        return Err(Problem::invalid("reason", "must say why, or by what evidence: it is audited"));
    }
    Ok(())
}

/// The saga as it is after a decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct Decided {
    #[serde(rename = "type")]
    saga_type: String,
    business_id: String,
    status: String,
    row_version: i64,
    /// False if the saga runs and was only asked to turn back: its next result may still complete it.
    certain: bool,
}

/// The answer to a decision that waits for a second operator.
#[derive(Debug, Serialize, ToSchema)]
pub struct Asked {
    decision: Id,
    detail: &'static str,
    /// The path by which another operator confirms it.
    confirm: String,
}

/// Decides about a saga, as it was seen.
#[utoipa::path(post, path = "/api/v1/sagas/{type}/{business_id}/{verb}",
    params(
        ("type" = String, Path), ("business_id" = String, Path),
        ("verb" = Verb, Path, description = "`compensate`, `abort` and `resolve` take two operators above an amount."),
    ),
    responses(
        (status = 200, description = "Decided.", body = Decided),
        (status = 202, description = "Another operator has to confirm it.", body = Asked),
        (status = 404, description = "There is no such saga."),
        (status = 409, description = "The saga has moved since it was shown, or the verb does not apply to it."),
        (status = 422, description = "A field cannot be right."),
    ),
)]
pub(crate) async fn decide(
    State(operations): State<Operations>,
    operator: Operator,
    Path((saga_type, business_id, verb)): Path<(String, String, String)>,
    Json(decision): Json<Decision>,
) -> Result<Response, Problem> {
    let verb: Verb = verb.parse().map_err(|error| Problem::invalid("verb", error))?;
    decision.check(verb)?;
    let view = operations.find(&saga_type, &business_id).await?;
    operations.decide(&operator, &view, verb, &decision).await
}

impl Decision {
    /// Refuses what the verb cannot use, so that no field is dropped in silence.
    fn check(&self, verb: Verb) -> Result<(), Problem> {
        check_reason(&self.reason)?;
        let given = [("step", self.step.is_some()), ("outcome", self.outcome.is_some())];
        for (field, given) in given {
            match (verb, given) {
                (Verb::Resolve, false) => return Err(Problem::invalid(field, "must be sent with resolve")),
                (verb, true) if verb != Verb::Resolve => {
                    return Err(Problem::invalid(field, format!("does not belong to {verb}")));
                }
                _ => {}
            }
        }
        match (self.outcome, &self.output) {
            (Some(Outcome::Applied), None) => Err(Problem::invalid(
                "output",
                "must be the answer that the step would have returned, or null",
            )),
            (Some(Outcome::NotApplied | Outcome::Compensated) | None, Some(_)) => {
                Err(Problem::invalid("output", "belongs to a step that was applied"))
            }
            _ => Ok(()),
        }
    }
}

impl Operations {
    pub(crate) async fn find(&self, saga_type: &str, business_id: &str) -> Result<SagaView, Problem> {
        if !self.types.contains(&saga_type) {
            return Err(Problem::not_found("saga"));
        }
        let found = self.sagas.get(saga_type, business_id).await.map_err(refused)?;
        found.ok_or_else(|| Problem::not_found("saga"))
    }

    /// Turns a saga back as it stands now, for a route that names nothing but the saga.
    ///
    /// # Cancel safety
    /// The decision may or may not have been written; look at the saga.
    ///
    /// # Errors
    /// 404 without such a saga; 409 if it cannot turn back, or has moved since it was read.
    pub async fn compensate(
        &self,
        operator: &Operator,
        saga_type: &str,
        business_id: &str,
        reason: &str,
    ) -> Result<Response, Problem> {
        let view = self.find(saga_type, business_id).await?;
        let decision = Decision {
            row_version: view.instance.row_version,
            reason: reason.to_owned(),
            step: None,
            outcome: None,
            output: None,
        };
        self.decide(operator, &view, Verb::Compensate, &decision).await
    }

    /// Carries a decision out, or stores it for a second operator.
    async fn decide(
        &self,
        operator: &Operator,
        view: &SagaView,
        verb: Verb,
        decision: &Decision,
    ) -> Result<Response, Problem> {
        let (saga_type, business_id) = (&view.instance.saga_type, &view.instance.business_id);
        if verb.settles() && self.needs_two(view) {
            // A decision that cannot be carried out must not wait for a second person.
            if !verbs_for(view.instance.status).contains(&verb) {
                let detail = format!("it is {}: {verb} does not apply to it", view.instance.status);
                return Err(Problem::conflict("saga-state", detail));
            }
            if view.instance.status.is_active() {
                let detail = "this amount takes two operators, and a saga that runs moves between them: pause it first";
                return Err(Problem::conflict("saga-state", detail));
            }
            if view.instance.row_version != decision.row_version {
                return Err(refused(SagaError::Stale));
            }
            let open = |step: &StepRow| Some(step.order) == decision.step && is_open(step);
            if verb == Verb::Resolve
                && decision.outcome != Some(Outcome::Compensated)
                && !view.steps.iter().any(open)
            {
                let detail = "the outcome of this step is known: resolve settles one that is open";
                return Err(Problem::conflict("saga-state", detail));
            }
            let id = pending::ask(&self.pool, view, verb, decision, operator.name()).await?;
            let confirm = format!("/api/v1/saga-decisions/{id}/confirm");
            let detail = "this amount takes two operators: another one with the role approve confirms it";
            let asked = Asked { decision: id, detail, confirm };
            return Ok((StatusCode::ACCEPTED, Json(asked)).into_response());
        }
        let certain = self.carry_out(operator.name(), saga_type, business_id, verb, decision).await?;
        Ok(Json(self.decided(saga_type, business_id, certain).await?).into_response())
    }

    /// Returns true for an amount from the bound on, and for an input whose amount cannot be read.
    fn needs_two(&self, view: &SagaView) -> bool {
        #[derive(Deserialize)]
        struct Amount {
            amount: i64,
            currency: String,
        }
        let Ok(Amount { amount, currency }) = view.instance.input.decode() else { return true };
        let money = currency.parse::<Currency>().and_then(|currency| Money::new(amount, currency));
        money.map_or(true, |money| {
            money.amount() / money.currency().minor_per_major() >= self.two_operators_from
        })
    }

    /// Carries a decision out in the name of `actor`; false if the saga was only asked to turn back.
    pub(crate) async fn carry_out(
        &self,
        actor: &str,
        saga_type: &str,
        business_id: &str,
        verb: Verb,
        decision: &Decision,
    ) -> Result<bool, Problem> {
        let operator = self.sagas.operator(actor).having_seen(decision.row_version);
        let reason = decision.reason.trim();
        let done = match verb {
            Verb::Retry => operator.retry_now(saga_type, business_id, reason).await,
            Verb::Resume => operator.resume(saga_type, business_id, reason).await,
            Verb::Pause => operator.pause(saga_type, business_id, reason).await,
            Verb::Abort => operator.abort(saga_type, business_id, reason).await,
            Verb::Resolve => {
                let (step, resolution) = decision.resolution()?;
                operator.resolve_step(saga_type, business_id, step, resolution, reason).await
            }
            Verb::Compensate => {
                let cancelled = operator.compensate(saga_type, business_id, reason).await.map_err(refused)?;
                return Ok(cancelled == Cancelled::ForCertain);
            }
        };
        done.map(|()| true).map_err(refused)
    }

    /// The saga as it is after a decision.
    pub(crate) async fn decided(
        &self,
        saga_type: &str,
        business_id: &str,
        certain: bool,
    ) -> Result<Decided, Problem> {
        let instance = self.find(saga_type, business_id).await?.instance;
        Ok(Decided {
            saga_type: instance.saga_type,
            business_id: instance.business_id,
            status: instance.status.to_string(),
            row_version: instance.row_version,
            certain,
        })
    }
}

impl Decision {
    fn resolution(&self) -> Result<(u32, Resolution), Problem> {
        let step = self.step.ok_or_else(|| Problem::invalid("step", "must be sent with resolve"))?;
        let resolution = match self.outcome {
            Some(Outcome::Applied) => {
                let output = self.output.as_ref().unwrap_or(&Value::Null);
                let output = Document::encode(output).map_err(|error| Problem::internal(&error))?;
                Resolution::Applied(output)
            }
            Some(Outcome::Compensated) => Resolution::Compensated,
            _ => Resolution::NotApplied,
        };
        Ok((step, resolution))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undo_that_a_person_did_is_recorded_as_such() {
        let decision = |outcome: &str| -> Decision {
            let body =
                serde_json::json!({"row_version": 1, "reason": "bank 4711", "step": 2, "outcome": outcome});
            serde_json::from_value(body).unwrap()
        };
        let undone = decision("compensated");
        undone.check(Verb::Resolve).unwrap();
        assert!(matches!(undone.resolution().unwrap(), (2, Resolution::Compensated)));
        assert!(matches!(decision("not_applied").resolution().unwrap(), (2, Resolution::NotApplied)));
        assert!(decision("applied").check(Verb::Resolve).is_err(), "its output is missing");
    }
}
