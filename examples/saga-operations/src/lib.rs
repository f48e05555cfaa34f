//! The routes by which operators see the sagas of a service and decide about them.
//!
//! | route | role | does |
//! |---|---|---|
//! | `GET /api/v1/sagas` | see | lists sagas, newest first, by type and status |
//! | `GET /api/v1/sagas/{type}/{business_id}` | see | shows one saga: steps, audit, and the verbs that apply to it |
//! | `POST /api/v1/sagas/{type}/{business_id}/{verb}` | act | `retry`, `resume`, `pause`, `compensate`, `abort`, `resolve` |
//! | `POST /api/v1/saga-retries` | act | retries many sagas, or previews it |
//! | `GET /api/v1/saga-decisions` | see | lists decisions that wait for a second operator |
//! | `POST /api/v1/saga-decisions/{id}/confirm` | approve | confirms one and carries it out |
//!
//! Each decision names the `row_version` that the operator saw. A saga that has moved since then is refused with 409, so
//! a request that is sent twice decides once, and no idempotency key is needed.
//!
//! Two operators decide above an amount: `compensate`, `abort` and `resolve` say what became of money. The first
//! operator's request is stored and answered with 202; another operator with the role `approve` confirms it.

#![forbid(unsafe_code)]

mod bulk;
mod decide;
mod pending;
mod view;

use axum::extract::FromRef;
use clap::Args;
use probity_saga::{Orchestrator, SagaError};
use service_shell::{Guarded, Operators, Pool, Problem, Role, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use decide::{Asked, Decided, Decision, Outcome, Verb};
pub use view::verbs_for;

/// The table of decisions that wait for a second operator.
pub const SCHEMA: Schema = Schema {
    service: "saga-operations",
    sqlite: &[include_str!("../schema/sqlite.sql")],
    postgres: &[include_str!("../schema/postgres.sql")],
};

/// The state of these routes: the sagas of one service.
#[derive(Clone, Debug)]
pub struct Operations {
    /// The worker whose store holds the sagas, and which knows their definitions.
    pub sagas: Orchestrator,
    /// The types of sagas that this service runs. Services may share a database, and the sagas of another one are not
    /// shown here, nor decided by this service's operators and under its bound.
    pub types: &'static [&'static str],
    /// The database of the sagas and of [`SCHEMA`].
    pub pool: Pool,
    /// The amount from which two operators decide, in major units of any currency, such as dollars.
    pub two_operators_from: i64,
}

/// The setting of a service that has these routes.
#[derive(Args, Clone, Copy, Debug)]
pub struct TwoOperators {
    /// The amount from which two operators decide, in major units of any currency.
    #[arg(long, env = "TWO_OPERATORS_FROM", default_value = "10000", value_parser = clap::value_parser!(i64).range(0..))]
    pub two_operators_from: i64,
}

/// The routes, for a service whose state holds [`Operations`].
pub fn routes<S>(operators: &Operators) -> OpenApiRouter<S>
where
    Operations: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    let see = OpenApiRouter::default()
        .routes(routes!(view::list))
        .routes(routes!(view::show))
        .routes(routes!(pending::list))
        .operators(operators, Role::See);
    let act = OpenApiRouter::default()
        .routes(routes!(decide::decide))
        .routes(routes!(bulk::retry))
        .operators(operators, Role::Act);
    let approve =
        OpenApiRouter::default().routes(routes!(pending::confirm)).operators(operators, Role::Approve);
    see.merge(act).merge(approve)
}

/// The answer to a verb that the saga crate refused.
pub(crate) fn refused(error: SagaError) -> Problem {
    match error {
        SagaError::NoSuchSaga { .. } => Problem::not_found("saga"),
        SagaError::Stale => Problem::conflict(
            "saga-moved",
            "the saga has moved since it was shown: look at it again, and decide with its new row_version",
        ),
        SagaError::Refused { .. } => Problem::conflict("saga-state", error.to_string()),
        error => Problem::unavailable("the saga store", &error),
    }
}
