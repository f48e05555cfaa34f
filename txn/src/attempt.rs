//! One attempt: BEGIN, the token if there is one, the closure, and the end.

use std::pin::{Pin, pin};
use std::sync::Arc;

use sqlx::Pool;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::admission::Place;
use crate::backend::{Backend, Mark};
use crate::callback::TxFnOnce;
use crate::classify::{Class, Failure};
use crate::conclude::{Conclusion, Ending, conclude};
use crate::deadline::{Late, before};
use crate::error::{Error, Reason};
use crate::hooks::Hooks;
use crate::known::Known;
use crate::nesting;
use crate::open::Open;
use crate::run::report_gaps;
use crate::session::Session;
use crate::settings::Settings;
use crate::shield::Shield;
use crate::token::Token;
use crate::tx::Tx;

use opening::{Opened, ResultPlace, opened};

mod opening;

/// What is to be done, the closure apart.
pub(crate) struct Job<'p, DB: Backend, T> {
    pub(crate) pool: &'p Pool<DB>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) token: Option<Token<T>>,
    pub(crate) place: Place,
}

/// A COMMIT without an answer, to be settled by the token in the next attempt.
pub(crate) struct Question {
    pub(crate) cause: Failure,
    hooks: Hooks,
}

/// How one attempt ended.
pub(crate) enum Attempt<T, E> {
    Done(T),
    Failed(Error<E>),
    /// Nothing was written; a fresh transaction may fare better.
    Again(Failure),
    /// The deadline passed; nothing was written.
    Late,
    /// The COMMIT got no answer; the token will tell.
    Lost(Question),
}

pub(crate) async fn attempt<DB, F, T, E>(
    job: &Job<'_, DB, T>,
    body: F,
    number: u32,
    limit: Instant,
    known: &mut Known,
) -> Attempt<T, E>
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
        + Send,
    T: Send,
    E: Send,
{
    let settings = &job.settings;
    let mut clock = pin!(sleep_until(limit));
    let Opened { session, mark, result_place } = match opened(job, clock.as_mut(), known).await {
        Ok(opened) => opened,
        Err(ended) => return ended,
    };
    let mut open = Open::new(session, Arc::clone(settings), number);
    let result = {
        let mut tx = Tx::new(&mut open);
        before(clock.as_mut(), pin!(nesting::inside(settings.label, body(&mut tx)))).await
    };
    let Ok((result, nested)) = result else {
        open.session.rollback().await;
        return Attempt::Late;
    };
    if let Some(misuse) = nested {
        open.watch.spoil(Reason::Misuse(misuse));
    }
    report_gaps(&mut open.watch, settings);
    end(job, open, clock, (mark, result_place), result).await
}

/// Rolls back or commits, by what the closure returned and what the handle saw.
async fn end<DB, T, E>(
    job: &Job<'_, DB, T>,
    open: Open<DB>,
    clock: Pin<&mut Sleep>,
    (mark, result_place): (Option<Mark>, Option<ResultPlace>),
    result: Result<T, E>,
) -> Attempt<T, E>
where
    DB: Backend,
    T: Send,
    E: Send,
{
    let policy = &job.settings.policy;
    let Open { mut session, mut watch, hooks, .. } = open;
    let value = match (watch.take_spoiled(), result) {
        (Some(Reason::StatementFailed(failure)), _) if policy.retries(failure.class()) => {
            abandon(session, &failure).await;
            return Attempt::Again(failure);
        }
        // A mistake in the code, and no answer to what the closure asked: its own error may say otherwise.
        (Some(Reason::Misuse(misuse)), _) => {
            leave(session, None).await;
            return Attempt::Failed(Error::Misuse(misuse));
        }
        (reason, Err(error)) => {
            leave(session, reason.as_ref()).await;
            return Attempt::Failed(Error::App(error));
        }
        (Some(reason), Ok(_)) => {
            leave(session, Some(&reason)).await;
            return Attempt::Failed(Error::RolledBack(reason));
        }
        (None, Ok(value)) => value,
    };
    if let (Some(token), Some(place)) = (&job.token, result_place) {
        let result = (token.encode)(&value);
        let stored = before(clock, pin!(store(&mut session, job, &token.text, place, result))).await;
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => {
                session.rollback().await;
                return failed;
            }
            Err(Late) => {
                session.rollback().await;
                return Attempt::Late;
            }
        }
    }
    let ending = Ending {
        session,
        hooks,
        mark,
        pool: job.pool.clone(),
        label: job.settings.label,
        read_only: job.settings.read_only,
        wait: policy.commit_timeout,
        place: job.place.clone(),
    };
    match Shield::new(conclude(ending)).await {
        Conclusion::Committed => Attempt::Done(value),
        Conclusion::Refused(failure) if policy.retries(failure.class()) => Attempt::Again(failure),
        Conclusion::Refused(failure) => Attempt::Failed(Error::RolledBack(Reason::CommitRefused(failure))),
        Conclusion::Aborted(failure) => Attempt::Again(failure),
        Conclusion::Unknown(cause, hooks) if job.token.is_some() => Attempt::Lost(Question { cause, hooks }),
        Conclusion::Unknown(cause, _) => Attempt::Failed(Error::Unknown { cause }),
    }
}

/// Writes the result, already encoded, beside the token.
async fn store<DB: Backend, T, E>(
    session: &mut Session<DB>,
    job: &Job<'_, DB, T>,
    token: &str,
    place: ResultPlace,
    result: Result<String, serde_json::Error>,
) -> Result<(), Attempt<T, E>> {
    let result = result
        .map_err(|error| Attempt::Failed(Error::RolledBack(Reason::ResultNotStored(error.to_string()))))?;
    let stored = async {
        // The closure may have become somebody who may not write here.
        if let Some(role) = place.role.filter(|_| session.role_changed) {
            DB::become_role(session.connection(), &role).await?;
        }
        DB::store_result(session.connection(), &place.table, token, &result).await
    };
    match stored.await {
        Ok(1) => Ok(()),
        Ok(rows) => {
            let reason = format!("{rows} rows of {} have the token of this run instead of one", place.table);
            Err(Attempt::Failed(Error::RolledBack(Reason::ResultNotStored(reason))))
        }
        Err(error) => {
            let failure = Failure::read(&error, DB::classify);
            Err(if job.settings.policy.retries(failure.class()) {
                Attempt::Again(failure)
            } else {
                Attempt::Failed(Error::RolledBack(Reason::StatementFailed(failure)))
            })
        }
    }
}

/// Rolls back by what the handle saw.
async fn leave<DB: Backend>(session: Session<DB>, reason: Option<&Reason>) {
    match reason {
        Some(Reason::StatementFailed(failure)) => abandon(session, failure).await,
        _ => session.rollback().await,
    }
}

/// Rolls back, without asking a connection that is known to be gone; and gives up one that holds a
/// stale plan, since the plan would fail there for whoever borrows the connection next.
async fn abandon<DB: Backend>(session: Session<DB>, failure: &Failure) {
    if matches!(failure.class(), Class::ConnectionLost | Class::StalePlan) {
        session.close().await;
    } else {
        session.rollback().await;
    }
}
