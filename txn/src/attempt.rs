//! One attempt: BEGIN, the token if there is one, the closure, and the end.

use std::pin::pin;
use std::sync::Arc;

use sqlx::Pool;
use tokio::time::{Instant, sleep_until};

use crate::admission::Place;
use crate::backend::{Backend, Claim, Mark};
use crate::callback::TxFnOnce;
use crate::classify::{Class, Failure};
use crate::conclude::{Conclusion, Ending, conclude};
use crate::deadline::{Late, before};
use crate::error::{Error, Misuse, Reason};
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
    known.granted = job.token.is_none();
    let mut clock = pin!(sleep_until(limit));
    let (mut session, mark) = match before(clock.as_mut(), pin!(open(job))).await {
        Ok(Ok(open)) => open,
        Ok(Err(failed)) => return failed,
        Err(Late) => return Attempt::Late,
    };
    if let Some(token) = &job.token {
        let claimed = before(clock.as_mut(), pin!(claim(&mut session, settings.label, token))).await;
        match claimed {
            Ok(Ok(None)) => {
                // The token was free, so no earlier attempt was or will be committed.
                known.question = None;
                known.granted = true;
            }
            Ok(Ok(Some(stored))) => {
                session.rollback().await;
                job.place.leave();
                // Under another label it is the commit of somebody else for certain.
                let reused = matches!(stored, Err(Error::Misuse(Misuse::TokenReused { .. })));
                if let Some(question) = known.question.take().filter(|_| !reused) {
                    Shield::new(question.hooks.run(settings.label)).await;
                }
                return stored.map_or_else(Attempt::Failed, Attempt::Done);
            }
            Ok(Err(failed)) => {
                match &failed {
                    Attempt::Again(failure) => abandon(session, failure).await,
                    _ => session.rollback().await,
                }
                return failed;
            }
            Err(Late) => {
                session.rollback().await;
                return Attempt::Late;
            }
        }
    }
    let mut open = Open::new(session, Arc::clone(settings), number);
    let result = {
        let mut tx = Tx::new(&mut open);
        before(clock, pin!(nesting::inside(settings.label, body(&mut tx)))).await
    };
    let Ok(result) = result else {
        open.session.rollback().await;
        return Attempt::Late;
    };
    report_gaps(&mut open.watch, settings);
    end(job, open, mark, result).await
}

/// Rolls back or commits, by what the closure returned and what the handle saw.
async fn end<DB, T, E>(
    job: &Job<'_, DB, T>,
    open: Open<DB>,
    mark: Option<Mark>,
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
    if let Some(token) = &job.token {
        let result = (token.encode)(&value);
        if let Err(failed) = store(&mut session, job, &token.text, result).await {
            session.rollback().await;
            return failed;
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

/// A session in a transaction, and what it can be looked up by.
type Opened<DB> = (Session<DB>, Option<Mark>);

/// A connection with an open transaction.
async fn open<DB: Backend, T, E>(job: &Job<'_, DB, T>) -> Result<Opened<DB>, Attempt<T, E>> {
    let policy = &job.settings.policy;
    // A pool that does not test its connections may have kept as many dead ones as it has places: BEGIN is the
    // test, and nothing was tried on them that would count.
    let pool = job.pool.options();
    let mut untested = if pool.get_test_before_acquire() { 0 } else { pool.get_max_connections() };
    loop {
        let connection = job.pool.acquire().await.map_err(|error| {
            // Nothing was asked of the server yet. One that is just starting, or behind a proxy, may close a
            // new connection.
            let failure = Failure::read(&error, DB::classify);
            if policy.retries(failure.class()) {
                Attempt::Again(failure)
            } else {
                Attempt::Failed(Error::Pool(error))
            }
        })?;
        let mut session = Session::new(connection);
        // A token settles the question better than the server's memory of transaction ids.
        let marked = policy.look_up_lost_commits && !job.settings.read_only && job.token.is_none();
        let error = match session.begin(&job.settings, marked).await {
            Ok(mark) => return Ok((session, mark)),
            Err(error) => error,
        };
        let failure = Failure::read(&error, DB::classify);
        abandon(session, &failure).await;
        if failure.class() == Class::ConnectionLost && untested > 0 {
            untested -= 1;
        } else if policy.retries(failure.class()) {
            return Err(Attempt::Again(failure));
        } else {
            return Err(Attempt::Failed(Error::Pool(error)));
        }
    }
}

/// What a committed run with the same token left: its value, or why it is not ours.
type Stored<T, E> = Option<Result<T, Error<E>>>;

/// Takes the token, or reads what an earlier run stored with it.
async fn claim<DB: Backend, T, E>(
    session: &mut Session<DB>,
    label: &'static str,
    token: &Token<T>,
) -> Result<Stored<T, E>, Attempt<T, E>> {
    match DB::claim_token(session.connection(), &token.text, label).await {
        Ok(Claim::Fresh) => Ok(None),
        Ok(Claim::Moving) => Err(Attempt::Again(Failure::local(
            Class::Serialization,
            "the token was purged while it was looked up",
        ))),
        Ok(Claim::Stored { label: stored, .. }) if stored != label => {
            Ok(Some(Err(Error::Misuse(Misuse::TokenReused { label }))))
        }
        Ok(Claim::Stored { result, .. }) => {
            Ok(Some((token.decode)(&result).map_err(Error::ResultUnreadable)))
        }
        Err(error) => {
            let failure = Failure::read(&error, DB::classify);
            let again = match failure.class() {
                // A run with this token has not ended yet, or its server side has not: wait on.
                Class::LockTimeout | Class::Timeout => true,
                // The statement is ours, and was changed under us by a migration of our table.
                Class::StalePlan => true,
                class => crate::Policy::payments().retries(class),
            };
            Err(if again { Attempt::Again(failure) } else { Attempt::Failed(Error::Pool(error)) })
        }
    }
}

/// Writes the result, already encoded, beside the token.
async fn store<DB: Backend, T, E>(
    session: &mut Session<DB>,
    job: &Job<'_, DB, T>,
    token: &str,
    result: Result<String, serde_json::Error>,
) -> Result<(), Attempt<T, E>> {
    let result = result
        .map_err(|error| Attempt::Failed(Error::RolledBack(Reason::ResultNotStored(error.to_string()))))?;
    DB::store_result(session.connection(), token, &result).await.map_err(|error| {
        let failure = Failure::read(&error, DB::classify);
        if job.settings.policy.retries(failure.class()) {
            Attempt::Again(failure)
        } else {
            Attempt::Failed(Error::RolledBack(Reason::StatementFailed(failure)))
        }
    })
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
