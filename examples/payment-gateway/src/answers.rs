//! From a committed row to an answer: what requests for payments and for refunds have in common.
//!
//! Invariant: whatever this process answers after the transaction was committed comes from the row, and the row's
//! status comes from the end of its saga. So the retry after a crash renders the same answer from the same row.

use std::fmt::Display;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRef, FromRequest, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use probity_idempotency::{Recording, Recovered, layer::Verdict};
use probity_saga::{Orchestrator, Outcome, SagaError, Started, store::Document};
use saga_operations::Operations;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use service_shell::{BODY_LIMIT, Id, Json, Pool, Problem, ServiceToken};

use crate::{refunds, sagas, store};

/// A row whose status follows a saga, and that is found by the idempotency record of the request that made it.
pub(crate) trait SagaRow: Serialize + Send + Sync + Sized + 'static {
    /// The request that makes it, checked.
    type Request;
    /// The input of its saga.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The business name of its saga; its number is the business id.
    const SAGA: &'static str;
    /// The path of the collection in which it is shown.
    const PATH: &'static str;

    /// The public number.
    fn number(&self) -> &str;
    /// Returns true if its merchant need not ask again.
    fn is_final(&self) -> bool;
    /// Returns true if this request asks for what the row and the input of its saga are.
    fn is_made_by(&self, input: &Self::Input, request: &Self::Request) -> bool;
    /// Reads the row that a record made, if it made one.
    fn find_by_record(
        pool: &Pool,
        record: &str,
    ) -> impl Future<Output = Result<Option<Self>, sqlx::Error>> + Send;
}

/// The state that the handlers share.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub(crate) pool: Pool,
    pub(crate) sagas: Orchestrator,
    pub(crate) request_wait: Duration,
    /// The amount from which two operators decide, in major units.
    pub(crate) two_operators_from: i64,
    /// The secret with which the channel signs its webhooks.
    pub(crate) webhook_secret: ServiceToken,
    /// The secret from which those of the merchants' notifications are derived.
    pub(crate) notification_secret: ServiceToken,
    /// True if merchants may be told at addresses of this machine: where only this machine reaches the gateway.
    pub(crate) tells_inside: bool,
}

impl FromRef<Gateway> for Operations {
    fn from_ref(gateway: &Gateway) -> Operations {
        let Gateway { pool, sagas, two_operators_from, .. } = gateway;
        let (orchestrator, pool) = (sagas.clone(), pool.clone());
        Operations { sagas: orchestrator, types: sagas::TYPES, pool, two_operators_from: *two_operators_from }
    }
}

/// The state of a row after waiting for its saga.
#[derive(Debug)]
pub(crate) enum Waited {
    /// Its saga rests; the row says how.
    Settled,
    /// The time to wait is over.
    StillRunning,
}

impl Gateway {
    /// Waits for a saga, and sees to it that the row says what became of it.
    pub(crate) async fn wait(&self, started: &Started) -> Result<Waited, WaitError> {
        let waiting = self.sagas.wait(started);
        match tokio::time::timeout(self.request_wait, waiting).await {
            Err(_) => return Ok(Waited::StillRunning),
            Ok(outcome) => match outcome? {
                Outcome::Completed | Outcome::Compensated { .. } => {
                    close_ended(&self.pool).await?;
                }
                Outcome::Stuck { .. } | Outcome::Paused { .. } | Outcome::Aborted { .. } => {}
            },
        }
        Ok(Waited::Settled)
    }

    /// Answers a request whose row was committed with its saga.
    pub(crate) async fn settled<R: SagaRow>(&self, record: &str, started: &Started) -> Response {
        if let Err(error) = self.wait(started).await {
            return undecided(&error);
        }
        match R::find_by_record(&self.pool, record).await {
            Ok(Some(row)) => answered(&row),
            Ok(None) => undecided(&"a committed row cannot be found"),
            Err(error) => undecided(&error),
        }
    }

    /// Answers a request of which an earlier attempt may have been here; `None` if none was. A row outlives the record of
    /// its key, so the key may have come back with another request.
    pub(crate) async fn existing<R: SagaRow>(&self, record: &str, request: &R::Request) -> Option<Response> {
        let row = match R::find_by_record(&self.pool, record).await {
            Ok(row) => row?,
            Err(error) => return Some(undecided(&error)),
        };
        Some(match self.sagas.get(R::SAGA, row.number()).await {
            Ok(Some(view)) => match view.instance.input.decode::<R::Input>() {
                Ok(input) if !row.is_made_by(&input, request) => {
                    key_reused(R::PATH, row.number()).into_response()
                }
                Ok(_) => match self.rejoin::<R>(&view.instance.input, row.number()).await {
                    Ok(started) => self.settled::<R>(record, &started).await,
                    Err(error) => undecided(&error),
                },
                Err(error) => undecided(&error),
            },
            // Its saga was purged, long after the record of the key.
            Ok(None) if row.is_final() => key_reused(R::PATH, row.number()).into_response(),
            Ok(None) => undecided(&"a row without a saga"),
            Err(error) => undecided(&error),
        })
    }

    /// Makes a handle on a saga that was started before; the same start again is the same saga.
    pub(crate) async fn rejoin<R: SagaRow>(
        &self,
        input: &Document,
        number: &str,
    ) -> Result<Started, RejoinError> {
        let request: R::Input = input.decode()?;
        Ok(self.sagas.start(R::SAGA, number, &request).await?)
    }
}

/// Brings payments and refunds to the end that their sagas have reached; answers how many.
pub(crate) async fn close_ended(pool: &Pool) -> Result<u64, sqlx::Error> {
    Ok(store::close_ended(pool).await? + refunds::store::close_ended(pool).await?)
}

/// Explains that the end of a saga cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error(transparent)]
    Saga(#[from] SagaError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Explains that a saga that exists cannot be waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RejoinError {
    #[error("the stored request cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Saga(#[from] SagaError),
}

fn key_reused(path: &str, number: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        format!("this Idempotency-Key made {path}/{number}, which is something else: use a new key"),
    )
}

/// Answers that something may have been written, and that this answer does not tell what.
pub(crate) fn undecided(cause: &dyn Display) -> Response {
    (Extension(Verdict::Unknown), Problem::unavailable("the outcome", cause)).into_response()
}

/// Answers a request whose transaction was rolled back: nothing was written, and the key may be used again.
pub(crate) fn released(problem: Problem) -> Response {
    (Extension(Verdict::Retryable), problem).into_response()
}

/// Answers with a row. The repetition of an answer that is not final asks for the row again.
fn answered<R: SagaRow>(row: &R) -> Response {
    let verdict = if row.is_final() { Verdict::Final } else { Verdict::Pending };
    (Extension(verdict), shown(row)).into_response()
}

/// Answers the repetition of a request with its row.
pub(crate) fn repeated<R: SagaRow>(row: &R) -> Recovered {
    if row.is_final() { Recovered::Done(shown(row)) } else { Recovered::Pending(shown(row)) }
}

/// Renders 201 when the row is final, 202 while it is not. A declined payment is a payment: 201 with `failed`.
fn shown<R: SagaRow>(row: &R) -> Recording {
    let status = if row.is_final() { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    Recording::new(status.as_u16())
        .header(header::CONTENT_TYPE.as_str(), "application/json")
        .header(header::LOCATION.as_str(), format!("{}/{}", R::PATH, row.number()))
        .body(json!(row).to_string())
}

/// Checks a body before its key is claimed: what cannot be right leaves no trace, and the corrected request may use the
/// same key.
pub(crate) async fn checked<B, N>(request: Request, next: Next) -> Result<Response, Problem>
where
    B: DeserializeOwned + Send + 'static,
    N: TryFrom<B, Error = Problem> + Clone + Send + Sync + 'static,
{
    let (mut parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|_| Problem::bad_request("the body broke off: send it again"))?;
    let copy = Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let Json(body) = Json::<B>::from_request(copy, &()).await?;
    parts.extensions.insert(N::try_from(body)?);
    Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await)
}

/// Checks the length of a page; 20 unless told.
pub(crate) fn page_limit(limit: Option<i64>) -> Result<i64, Problem> {
    let limit = limit.unwrap_or(20);
    if (1..=100).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::invalid("limit", "must be from 1 to 100"))
    }
}

/// Splits a page into its rows and the cursor of the next one, if there may be one.
pub(crate) fn page<T>(limit: i64, found: Vec<(Id, T)>) -> (Vec<T>, Option<Id>) {
    let full = i64::try_from(found.len()).is_ok_and(|count| count == limit);
    let next = found.last().filter(|_| full).map(|(id, _)| *id);
    (found.into_iter().map(|(_, row)| row).collect(), next)
}
