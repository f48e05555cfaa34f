//! Makes one attempt: BEGIN, the token if there is one, the closure, and the end.

use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::backend::{Backend, Mark};
use crate::callback::TxFnOnce;
use crate::classify::Class;
use crate::error::{Error, RollbackReason};
use crate::failure::Failure;
use crate::metrics;
use crate::run::ambiguity::{CommitAmbiguity, LostCommit};
use crate::run::begin::{OpenTransaction, ResultPlace, begin};
use crate::run::commit::{CommitJob, CommitOutcome, commit};
use crate::run::deadline::{Late, run_until};
use crate::run::job::{Attempt, Job};
use crate::run::nesting;
use crate::session::Session;
use crate::settings::Settings;
use crate::shield::Shield;
use crate::tx::handle::Tx;
use crate::tx::statement_guard::StatementGuard;
use crate::tx::tx_state::TxState;

/// The conditions under which an attempt starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The number of the attempt, from 1.
    pub(super) number: u32,
    /// The time by which COMMIT must have been sent.
    pub(super) limit: Instant,
    /// The attempt before met a stale plan, so this one makes all plans afresh.
    pub(super) forget_plans: bool,
}

/// Makes one attempt.
pub(super) async fn attempt<DB, F, T, E>(
    job: &Job<'_, DB, T>,
    body: F,
    start: Start,
    ambiguity: &mut CommitAmbiguity,
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
    let begun = begin(job, clock.as_mut(), start.forget_plans, ambiguity).await;
    let OpenTransaction { session, mark, result_place } = match begun {
        Ok(transaction) => transaction,
        Err(ended) => return ended,
    };
    let mut state = TxState::new(session, Arc::clone(settings), start.number);
    let result = {
        let mut tx = Tx::new(&mut state);
        run_until(clock.as_mut(), pin!(nesting::run_inside(settings.label, body(&mut tx)))).await
    };
    let Ok((result, nested)) = result else {
        state.session.rollback().await;
        return Attempt::Late(Failure::local(Class::Timeout, "the closure was still at work"));
    };
    if let Some(misuse) = nested {
        state.guard.poison(RollbackReason::Misuse(misuse));
    }
    report_gaps(&mut state.guard, settings);
    end(job, state, clock, (mark, result_place), result).await
}

/// Rolls back or commits, by what the closure returned and what the handle saw.
async fn end<DB, T, E>(
    job: &Job<'_, DB, T>,
    state: TxState<DB>,
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
    let TxState { mut session, mut guard, hooks, .. } = state;
    let value = match (guard.take_poison(), result) {
        (Some(RollbackReason::StatementFailed(failure)), _) if settings.retries(failure.class()) => {
            session.end_after(settings, &failure).await;
            return Attempt::Again(failure);
        }
        // This is a mistake in the code. It replaces the closure's own result, which may hide it.
        (Some(RollbackReason::Misuse(misuse)), _) => {
            roll_back(settings, session, None).await;
            return Attempt::Failed(Error::Misuse(misuse));
        }
        (reason, Err(error)) => {
            roll_back(settings, session, reason.as_ref()).await;
            return Attempt::Failed(Error::App(error));
        }
        (Some(reason), Ok(_)) => {
            roll_back(settings, session, Some(&reason)).await;
            return Attempt::Failed(Error::RolledBack(reason));
        }
        (None, Ok(value)) => value,
    };
    if let (Some(token), Some(place)) = (&job.token, result_place) {
        let result = (token.encode)(&value);
        let stored = run_until(clock, pin!(store(&mut session, job, &token.text, place, result))).await;
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
    let commit_job = CommitJob {
        session,
        hooks,
        mark,
        pool: job.pool.clone(),
        label: settings.label,
        read_only: settings.read_only,
        wait: settings.policy.commit_timeout,
        hook_timeout: settings.policy.hook_timeout,
        permit: job.permit.clone(),
    };
    match Shield::new(commit(commit_job)).await {
        CommitOutcome::Committed => Attempt::Done(value),
        CommitOutcome::Refused(failure) if settings.retries(failure.class()) => Attempt::Again(failure),
        CommitOutcome::Refused(failure) => {
            Attempt::Failed(Error::RolledBack(RollbackReason::CommitRefused(failure)))
        }
        CommitOutcome::Aborted(failure) => Attempt::Again(failure),
        CommitOutcome::Unknown(cause, hooks) if job.token.is_some() => {
            Attempt::Lost(LostCommit { cause, hooks })
        }
        CommitOutcome::Unknown(cause, _) => Attempt::Failed(Error::Unknown { cause }),
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
    let result = result.map_err(|error| {
        Attempt::Failed(Error::RolledBack(RollbackReason::ResultNotStored(error.to_string())))
    })?;
    let named = !job.settings.policy.behind_pooler;
    let stored = async {
        // The closure may have taken a role that may not write here.
        if let Some(role) = place.role.filter(|_| session.role_changed) {
            DB::become_role(session.connection(), &role).await?;
        }
        DB::store_result(session.connection(), &place.table, token, &result, named).await
    };
    match stored.await {
        Ok(1) => Ok(()),
        Ok(rows) => {
            let reason = format!("{rows} rows of {} have the token of this run instead of one", place.table);
            Err(Attempt::Failed(Error::RolledBack(RollbackReason::ResultNotStored(reason))))
        }
        Err(error) => {
            let failure = Failure::of::<DB>(&error);
            Err(if job.settings.retries(failure.class()) {
                Attempt::Again(failure)
            } else {
                Attempt::Failed(Error::RolledBack(RollbackReason::StatementFailed(failure)))
            })
        }
    }
}

/// Rolls back by what the handle saw.
async fn roll_back<DB: Backend>(settings: &Settings, session: Session<DB>, reason: Option<&RollbackReason>) {
    match reason {
        Some(RollbackReason::StatementFailed(failure)) => session.end_after(settings, failure).await,
        _ => session.rollback().await,
    }
}

/// Reports time that passed inside the transaction while the database had nothing to do, and refuses the commit if it
/// was too much.
fn report_gaps(guard: &mut StatementGuard, settings: &Settings) {
    let spent = guard.time_between();
    let policy = &settings.policy;
    metrics::record_between_statements(settings.label, spent, policy.between_statements_warn);
    if let Some(limit) = policy.between_statements_max
        && spent > limit
    {
        guard.poison(RollbackReason::BetweenStatements { spent, limit });
    }
}
