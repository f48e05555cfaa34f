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

mod connecting;
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
    /// The deadline passed during this; nothing was written.
    Late(Failure),
    /// The COMMIT got no answer; the token will tell.
    Lost(Question),
}

/// The conditions under which an attempt starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// From 1.
    pub(crate) number: u32,
    /// Until when COMMIT must have been sent.
    pub(crate) limit: Instant,
    /// The attempt before met a stale plan, so this one makes all plans afresh.
    pub(crate) forget_plans: bool,
}

pub(crate) async fn attempt<DB, F, T, E>(
    job: &Job<'_, DB, T>,
    body: F,
    start: Start,
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
    let mut clock = pin!(sleep_until(start.limit));
    let opened = opened(job, clock.as_mut(), start.forget_plans, known).await;
    let Opened { session, mark, result_place } = match opened {
        Ok(opened) => opened,
        Err(ended) => return ended,
    };
    let mut open = Open::new(session, Arc::clone(settings), start.number);
    let result = {
        let mut tx = Tx::new(&mut open);
        before(clock.as_mut(), pin!(nesting::inside(settings.label, body(&mut tx)))).await
    };
    let Ok((result, nested)) = result else {
        open.session.rollback().await;
        return Attempt::Late(Failure::local(Class::Timeout, "the closure was still at work"));
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
    let settings = &job.settings;
    let Open { mut session, mut watch, hooks, .. } = open;
    let value = match (watch.take_spoiled(), result) {
        (Some(Reason::StatementFailed(failure)), _) if settings.retries(failure.class()) => {
            abandon(settings, session, &failure).await;
            return Attempt::Again(failure);
        }
        // A mistake in the code, and no answer to what the closure asked: its own error may say otherwise.
        (Some(Reason::Misuse(misuse)), _) => {
            leave(settings, session, None).await;
            return Attempt::Failed(Error::Misuse(misuse));
        }
        (reason, Err(error)) => {
            leave(settings, session, reason.as_ref()).await;
            return Attempt::Failed(Error::App(error));
        }
        (Some(reason), Ok(_)) => {
            leave(settings, session, Some(&reason)).await;
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
                let text = "the result was still being stored beside the token";
                return Attempt::Late(Failure::local(Class::Timeout, text));
            }
        }
    }
    let ending = Ending {
        session,
        hooks,
        mark,
        pool: job.pool.clone(),
        label: settings.label,
        read_only: settings.read_only,
        wait: settings.policy.commit_timeout,
        hook_timeout: settings.policy.hook_timeout,
        place: job.place.clone(),
    };
    match Shield::new(conclude(ending)).await {
        Conclusion::Committed => Attempt::Done(value),
        Conclusion::Refused(failure) if settings.retries(failure.class()) => Attempt::Again(failure),
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
    let named = !job.settings.policy.behind_pooler;
    let stored = async {
        // The closure may have become somebody who may not write here.
        if let Some(role) = place.role.filter(|_| session.role_changed) {
            DB::become_role(session.connection(), &role).await?;
        }
        DB::store_result(session.connection(), &place.table, token, &result, named).await
    };
    match stored.await {
        Ok(1) => Ok(()),
        Ok(rows) => {
            let reason = format!("{rows} rows of {} have the token of this run instead of one", place.table);
            Err(Attempt::Failed(Error::RolledBack(Reason::ResultNotStored(reason))))
        }
        Err(error) => {
            let failure = Failure::read(&error, DB::classify);
            Err(if job.settings.retries(failure.class()) {
                Attempt::Again(failure)
            } else {
                Attempt::Failed(Error::RolledBack(Reason::StatementFailed(failure)))
            })
        }
    }
}

/// Rolls back by what the handle saw.
async fn leave<DB: Backend>(settings: &Settings, session: Session<DB>, reason: Option<&Reason>) {
    match reason {
        Some(Reason::StatementFailed(failure)) => abandon(settings, session, failure).await,
        _ => session.rollback().await,
    }
}

/// Rolls back, or gives the connection up if it would fail for whoever borrows it next.
async fn abandon<DB: Backend>(settings: &Settings, session: Session<DB>, failure: &Failure) {
    if settings.spends_the_session(failure.class()) {
        session.close().await;
    } else {
        session.rollback().await;
    }
}
