//! The start of an attempt: a connection, BEGIN, and the token if there is one.
//!
//! Invariant: a connection that was dead in its pool, or that holds a stale plan of the table of tokens, is
//! replaced within the attempt: nothing was tried on it that would count.

use std::pin::{Pin, pin};

use tokio::time::Sleep;

use super::{Attempt, Job, abandon};
use crate::backend::{Backend, Claim, Mark};
use crate::classify::{Class, Failure};
use crate::deadline::{Late, before};
use crate::error::{Error, Misuse};
use crate::known::Known;
use crate::policy::Policy;
use crate::session::Session;
use crate::shield::Shield;
use crate::token::Token;
use crate::untested::Untested;

/// A session in a transaction, and what it can be looked up by.
type Opened<DB> = (Session<DB>, Option<Mark>);

/// An open transaction that holds the token, if the run has one; or how the attempt ended before that.
pub(super) async fn opened<DB: Backend, T, E>(
    job: &Job<'_, DB, T>,
    mut clock: Pin<&mut Sleep>,
    known: &mut Known,
) -> Result<Opened<DB>, Attempt<T, E>> {
    let label = job.settings.label;
    known.granted = job.token.is_none();
    // A migration makes the plan stale on each connection that has it, and none that is made afresh has it.
    let mut stale = job.pool.size();
    loop {
        let (mut session, mark) =
            before(clock.as_mut(), pin!(open(job))).await.map_err(|Late| Attempt::Late)??;
        let Some(token) = &job.token else { return Ok((session, mark)) };
        let claimed = before(clock.as_mut(), pin!(claim(&mut session, label, token))).await;
        match claimed {
            Ok(Ok(None)) => {
                // The token was free, so no earlier attempt was or will be committed.
                known.question = None;
                known.granted = true;
                return Ok((session, mark));
            }
            Ok(Ok(Some(stored))) => {
                session.rollback().await;
                job.place.leave();
                // Under another label it is the commit of somebody else for certain.
                let reused = matches!(stored, Err(Error::Misuse(Misuse::TokenReused { .. })));
                if let Some(question) = known.question.take().filter(|_| !reused) {
                    Shield::new(question.hooks.run(label)).await;
                }
                return Err(stored.map_or_else(Attempt::Failed, Attempt::Done));
            }
            Ok(Err(Attempt::Again(failure))) => {
                abandon(session, &failure).await;
                if failure.class() != Class::StalePlan || stale == 0 {
                    return Err(Attempt::Again(failure));
                }
                stale -= 1;
            }
            Ok(Err(failed)) => {
                session.rollback().await;
                return Err(failed);
            }
            Err(Late) => {
                session.rollback().await;
                return Err(Attempt::Late);
            }
        }
    }
}

/// A connection with an open transaction.
async fn open<DB: Backend, T, E>(job: &Job<'_, DB, T>) -> Result<Opened<DB>, Attempt<T, E>> {
    let policy = &job.settings.policy;
    // BEGIN is the test, and nothing was tried on a dead connection that would count.
    let mut untested = Untested::lying_in(job.pool);
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
        let mut session = Session::new(connection, job.place.clone());
        // A token settles the question better than the server's memory of transaction ids.
        let marked = policy.look_up_lost_commits && !job.settings.read_only && job.token.is_none();
        let error = match session.begin(&job.settings, marked).await {
            Ok(mark) => return Ok((session, mark)),
            Err(error) => error,
        };
        let failure = Failure::read(&error, DB::classify);
        abandon(session, &failure).await;
        if untested.passes_over(&failure) {
            continue;
        }
        let again = policy.retries(failure.class());
        return Err(if again { Attempt::Again(failure) } else { Attempt::Failed(Error::Pool(error)) });
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
                class => Policy::payments().retries(class),
            };
            Err(if again { Attempt::Again(failure) } else { Attempt::Failed(Error::Pool(error)) })
        }
    }
}
