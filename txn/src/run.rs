//! The loop of attempts.
//!
//! Invariant: each attempt is a new transaction and a new clone of the closure; the value of an
//! attempt leaves this module only after its COMMIT was answered.

use std::time::Duration;

use sqlx::Pool;
use tokio::time::{Instant, timeout_at};

use crate::backend::Backend;
use crate::callback::TxFnOnce;
use crate::classify::{Class, Failure};
use crate::error::{Error, Misuse, Reason};
use crate::nesting;
use crate::session::{Commit, Session};
use crate::settings::Settings;
use crate::shield::Shield;
use crate::tx::Tx;

/// How one attempt ended.
enum Attempt<T, E> {
    Done(T),
    Failed(Error<E>),
    /// Nothing was written; a fresh transaction may fare better.
    Again(Failure),
    /// The deadline passed; nothing was written.
    Late,
}

pub(crate) async fn run<DB, F, T, E>(pool: &Pool<DB>, settings: Settings, body: F) -> Result<T, Error<E>>
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
        + Clone
        + Send,
    T: Send,
    E: Send,
{
    settings.check::<DB>().map_err(Error::Misuse)?;
    if let Some(outer) = nesting::open_label() {
        return Err(Error::Misuse(Misuse::Nested { outer, inner: settings.label }));
    }
    let policy = &settings.policy;
    let deadline = Instant::now() + policy.deadline;
    let mut attempts = 0;
    let mut last = None;
    let late = |attempts, last| Error::Deadline { attempts, deadline: policy.deadline, last };
    loop {
        attempts += 1;
        match attempt(pool, &settings, body.clone(), attempts, deadline).await {
            Attempt::Done(value) => return Ok(value),
            Attempt::Failed(error) => return Err(error),
            Attempt::Late => return Err(late(attempts, last)),
            Attempt::Again(failure) if attempts >= policy.attempts => {
                return Err(Error::Conflict { attempts, last: failure });
            }
            Attempt::Again(failure) => {
                tracing::debug!(label = settings.label, attempts, %failure, "conflict, trying again");
                let pause = policy.pause(attempts, random());
                if Instant::now() + pause >= deadline {
                    return Err(late(attempts, Some(failure)));
                }
                last = Some(failure);
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn attempt<DB, F, T, E>(
    pool: &Pool<DB>,
    settings: &Settings,
    body: F,
    number: u32,
    deadline: Instant,
) -> Attempt<T, E>
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
        + Send,
    T: Send,
    E: Send,
{
    let session = match timeout_at(deadline, open(pool, settings)).await {
        Ok(Ok(session)) => session,
        Ok(Err(again_or_failed)) => return again_or_failed,
        Err(_elapsed) => return Attempt::Late,
    };
    let mut tx = Tx::new(session, settings.label, number);
    let result = timeout_at(deadline, nesting::inside(settings.label, body(&mut tx))).await;
    let Ok(result) = result else {
        tx.session.rollback().await;
        return Attempt::Late;
    };
    let spent = tx.watch.between();
    report_gaps(&mut tx, settings, spent);
    let Tx { session, watch, .. } = tx;
    match (watch.into_spoiled(), result) {
        (Some(Reason::StatementFailed(failure)), _) if settings.policy.retries(failure.class()) => {
            abandon(session, &failure).await;
            Attempt::Again(failure)
        }
        (_, Err(error)) => {
            session.rollback().await;
            Attempt::Failed(Error::App(error))
        }
        (Some(reason), Ok(_)) => {
            session.rollback().await;
            Attempt::Failed(Error::RolledBack(reason))
        }
        (None, Ok(value)) => match Shield::new(session.commit(settings.policy.commit_timeout)).await {
            Commit::Done => Attempt::Done(value),
            Commit::Refused(failure) if settings.policy.retries(failure.class()) => Attempt::Again(failure),
            Commit::Refused(failure) => Attempt::Failed(Error::RolledBack(Reason::CommitRefused(failure))),
            Commit::Lost(cause) => Attempt::Failed(Error::Unknown { cause }),
        },
    }
}

/// A connection with an open transaction.
async fn open<DB: Backend, T, E>(pool: &Pool<DB>, settings: &Settings) -> Result<Session<DB>, Attempt<T, E>> {
    let connection = pool.acquire().await.map_err(|error| Attempt::Failed(Error::Pool(error)))?;
    let mut session = Session::new(connection);
    match session.begin(settings).await {
        Ok(_) => Ok(session),
        Err(error) => {
            let failure = Failure::read(&error, DB::classify);
            abandon(session, &failure).await;
            Err(if settings.policy.retries(failure.class()) {
                Attempt::Again(failure)
            } else {
                Attempt::Failed(Error::Pool(error))
            })
        }
    }
}

/// Rolls back, without asking a connection that is known to be gone.
async fn abandon<DB: Backend>(session: Session<DB>, failure: &Failure) {
    if failure.class() == Class::ConnectionLost {
        session.close().await;
    } else {
        session.rollback().await;
    }
}

/// Reports time that passed inside the transaction while the database had nothing to do.
fn report_gaps<DB: Backend>(tx: &mut Tx<'_, DB>, settings: &Settings, spent: Duration) {
    let policy = &settings.policy;
    if spent > policy.between_statements_warn {
        tracing::warn!(
            label = settings.label,
            ?spent,
            "much time between the statements of a transaction: is there an external call inside?"
        );
    }
    if let Some(limit) = policy.between_statements_max
        && spent > limit
    {
        tx.watch.spoil(Reason::BetweenStatements { spent, limit });
    }
}

/// Randomness for the pause. Without a source of it the pause is simply the longest.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
