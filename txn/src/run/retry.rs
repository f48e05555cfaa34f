//! The loop of attempts.
//!
//! Invariant: each attempt is a new transaction and a new clone of the closure, and its value leaves
//! this module only when the commit is certain. No failure is reported as more certain than what is
//! [known](CommitAmbiguity) about earlier commits and the token.

use std::sync::Arc;

use sqlx::Pool;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::backend::Backend;
use crate::callback::TxFnOnce;
use crate::classify::Class;
use crate::error::Error;
use crate::failure::Failure;
use crate::metrics;
use crate::run::admission;
use crate::run::ambiguity::CommitAmbiguity;
use crate::run::attempt::{Start, attempt};
use crate::run::check::check;
use crate::run::deadline;
use crate::run::job::{Attempt, Job};
use crate::run::token::Token;
use crate::settings::Settings;
use crate::tx::handle::Tx;

/// Runs `body` until it is committed, refused, or out of time.
pub(crate) async fn run<DB, F, T, E>(
    pool: &Pool<DB>,
    settings: Settings,
    token: Option<Token<T>>,
    body: F,
) -> Result<T, Error<E>>
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
        + Clone
        + Send,
    T: Send,
    E: Send,
{
    let label = settings.label;
    let started = Instant::now();
    let span = tracing::debug_span!("txn", label, database = DB::NAME);
    let outcome = async {
        check::<DB, T>(&settings, token.as_ref()).map_err(Error::Misuse)?;
        let deadline = deadline::after(started, settings.policy.deadline);
        let Ok(permit) = admission::acquire(label, settings.in_flight_max, deadline).await else {
            let ambiguity = CommitAmbiguity::new(token.as_ref());
            let text = "as many runs of this label as max_in_flight allows were in flight all along";
            let cause = Failure::local(Class::Timeout, text);
            let late = Error::Deadline { attempts: 0, deadline: settings.policy.deadline, cause };
            return Err(ambiguity.report::<DB, E>(late, 0));
        };
        let job = Job { pool, settings: Arc::new(settings), token, permit };
        attempts(job, deadline, body).await
    }
    .instrument(span)
    .await;
    metrics::record_run(label, started.elapsed(), outcome.as_ref().err().map(Error::kind));
    outcome
}

async fn attempts<DB, F, T, E>(job: Job<'_, DB, T>, deadline: Instant, body: F) -> Result<T, Error<E>>
where
    DB: Backend,
    for<'t, 'b> F: AsyncFnOnce(&'t mut Tx<'b, DB>) -> Result<T, E>
        + TxFnOnce<&'t mut Tx<'b, DB>, Result<T, E>, Fut: Send>
        + Clone
        + Send,
    T: Send,
    E: Send,
{
    let (label, policy) = (job.settings.label, &job.settings.policy);
    let mut ambiguity = CommitAmbiguity::new(job.token.as_ref());
    let mut limit = deadline;
    let mut asking = false;
    let mut attempts = 0;
    let mut last: Option<Class> = None;
    let mut pauses = job.settings.schedule.pauses();
    loop {
        attempts += 1;
        metrics::count_attempt(label);
        let late = |attempts, cause| Error::Deadline { attempts, deadline: policy.deadline, cause };
        let start = Start { number: attempts, limit, forget_plans: last == Some(Class::StalePlan) };
        let failure = match attempt(&job, body.clone(), start, &mut ambiguity).await {
            Attempt::Done(value) => return Ok(value),
            Attempt::Lost(open) => {
                // The look-up may take as long as the answer could have taken. If each COMMIT gets lost,
                // the run ends after that time.
                if !asking {
                    limit = limit.max(deadline::after(Instant::now(), policy.commit_timeout));
                    asking = true;
                }
                let cause = open.cause.clone();
                metrics::count_conflict(label, cause.class().name());
                ambiguity.lost_commit = Some(open);
                cause
            }
            Attempt::Late(cause) => return Err(ambiguity.report::<DB, E>(late(attempts, cause), attempts)),
            Attempt::Failed(error) if ambiguity.lost_commit.is_none() || Instant::now() >= limit => {
                return Err(ambiguity.report::<DB, E>(error, attempts));
            }
            Attempt::Failed(_) => {
                metrics::count_conflict(label, "unavailable");
                Failure::local(Class::ConnectionLost, "the database could not be asked")
            }
            Attempt::Again(failure) => {
                metrics::count_conflict(label, failure.class().name());
                if ambiguity.lost_commit.is_none() && attempts >= policy.attempts {
                    return Err(
                        ambiguity.report::<DB, E>(Error::Conflict { attempts, last: failure }, attempts)
                    );
                }
                failure
            }
        };
        last = Some(failure.class());
        let pause = match pauses.next(policy, attempts, random()) {
            Some(pause) => pause,
            None if ambiguity.lost_commit.is_some() => policy.pause(attempts, random()),
            None => {
                let enough = Error::Conflict { attempts, last: failure };
                return Err(ambiguity.report::<DB, E>(enough, attempts));
            }
        };
        if deadline::after(Instant::now(), pause) >= limit {
            return Err(ambiguity.report::<DB, E>(late(attempts, failure), attempts));
        }
        metrics::log_retry(attempts, &failure, pause);
        tokio::time::sleep(pause).await;
    }
}

/// Randomness for the pause. Without a source of it the pause is simply the longest.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}
