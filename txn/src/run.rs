//! The loop of attempts.
//!
//! Invariant: each attempt is a new transaction and a new clone of the closure, and its value leaves
//! this module only when the commit is certain. No failure is reported as more certain than what is
//! [known](Known) about earlier commits and the token.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Pool;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::admission;
use crate::attempt::{Attempt, Job, Start, attempt};
use crate::backend::Backend;
use crate::callback::TxFnOnce;
use crate::classify::{Class, Failure};
use crate::deadline;
use crate::error::{Error, Misuse};
use crate::known::Known;
use crate::nesting;
use crate::settings::Settings;
use crate::telemetry;
use crate::token::Token;
use crate::tx::Tx;
use crate::watch::Watch;

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
        let Ok(place) = admission::enter(label, settings.in_flight_max, deadline).await else {
            let known = Known::before(token.as_ref());
            let text = "as many runs of this label as max_in_flight allows were in flight all along";
            let cause = Failure::local(Class::Timeout, text);
            let late = Error::Deadline { attempts: 0, deadline: settings.policy.deadline, cause };
            return Err(known.report::<DB, E>(late, 0));
        };
        let job = Job { pool, settings: Arc::new(settings), token, place };
        attempts(job, deadline, body).await
    }
    .instrument(span)
    .await;
    telemetry::finished(label, started.elapsed(), outcome.as_ref().err().map(Error::kind));
    outcome
}

fn check<DB: Backend, T>(settings: &Settings, token: Option<&Token<T>>) -> Result<(), Misuse> {
    settings.check::<DB>()?;
    if let Some(token) = token {
        token.check::<DB>()?;
    }
    nesting::check(settings.label)
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
    let mut known = Known::before(job.token.as_ref());
    let mut limit = deadline;
    let mut asking = false;
    let mut attempts = 0;
    let mut last: Option<Class> = None;
    let mut pauses = job.settings.schedule.pauses();
    loop {
        attempts += 1;
        telemetry::attempt(label);
        let late = |attempts, cause| Error::Deadline { attempts, deadline: policy.deadline, cause };
        let start = Start { number: attempts, limit, forget_plans: last == Some(Class::StalePlan) };
        let failure = match attempt(&job, body.clone(), start, &mut known).await {
            Attempt::Done(value) => return Ok(value),
            Attempt::Lost(open) => {
                // Finding out may take as long as the answer could have taken; but if each COMMIT gets lost,
                // that is all the time there is.
                if !asking {
                    limit = limit.max(deadline::after(Instant::now(), policy.commit_timeout));
                    asking = true;
                }
                let cause = open.cause.clone();
                telemetry::conflict(label, cause.class().name());
                known.question = Some(open);
                cause
            }
            Attempt::Late(cause) => return Err(known.report::<DB, E>(late(attempts, cause), attempts)),
            Attempt::Failed(error) if known.question.is_none() || Instant::now() >= limit => {
                return Err(known.report::<DB, E>(error, attempts));
            }
            Attempt::Failed(_) => {
                telemetry::conflict(label, "unavailable");
                Failure::local(Class::ConnectionLost, "the database could not be asked")
            }
            Attempt::Again(failure) => {
                telemetry::conflict(label, failure.class().name());
                if known.question.is_none() && attempts >= policy.attempts {
                    return Err(known.report::<DB, E>(Error::Conflict { attempts, last: failure }, attempts));
                }
                failure
            }
        };
        last = Some(failure.class());
        let pause = match pauses.next(policy, attempts, random()) {
            Some(pause) => pause,
            None if known.question.is_some() => policy.pause(attempts, random()),
            None => {
                let enough = Error::Conflict { attempts, last: failure };
                return Err(known.report::<DB, E>(enough, attempts));
            }
        };
        if deadline::after(Instant::now(), pause) >= limit {
            return Err(known.report::<DB, E>(late(attempts, failure), attempts));
        }
        telemetry::again(attempts, &failure, pause);
        tokio::time::sleep(pause).await;
    }
}

/// Randomness for the pause. Without a source of it the pause is simply the longest.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// Reports time that passed inside the transaction while the database had nothing to do.
pub(crate) fn report_gaps(watch: &mut Watch, settings: &Settings) {
    let spent: Duration = watch.between();
    let policy = &settings.policy;
    telemetry::between_statements(settings.label, spent);
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
        watch.spoil(crate::error::Reason::BetweenStatements { spent, limit });
    }
}
