//! The start of an attempt: a connection, BEGIN, and the token if there is one.
//!
//! Invariant: a connection that was dead in its pool, or that holds a stale plan of the table of tokens, is
//! replaced within the attempt: nothing was tried on it that would count.

use std::pin::{Pin, pin};
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use tokio::time::Sleep;

use crate::backend::{Backend, Claim, Mark};
use crate::classify::Class;
use crate::error::{Error, Misuse};
use crate::failure::Failure;
use crate::policy::Policy;
use crate::pool_error::PoolError;
use crate::run::ambiguity::CommitAmbiguity;
use crate::run::connect::{NoConnection, Waiting, acquire};
use crate::run::deadline::{Late, run_until};
use crate::run::idle_connections::IdleConnections;
use crate::run::job::{Attempt, Job};
use crate::run::token::Token;
use crate::session::Session;
use crate::settings::Settings;
use crate::shield::Shield;
use crate::token_table::found;

/// An open transaction.
pub(super) struct OpenTransaction<DB: Backend> {
    pub(super) session: Session<DB>,
    /// The mark by which the transaction can be looked up.
    pub(super) mark: Option<Mark>,
    /// The place of the result, if the transaction holds a token.
    pub(super) result_place: Option<ResultPlace>,
}

/// The table that a token was written to, by its whole name, and the role it was written as. The closure may change
/// both for its own statements.
pub(super) struct ResultPlace {
    pub(super) table: Arc<str>,
    pub(super) role: Option<String>,
}

/// The answer of the table of tokens about the token of a run.
enum Claimed<T, E> {
    /// The run holds it.
    Granted(ResultPlace),
    /// The value of a committed run with the same token, or the reason why it belongs to another operation.
    Stored(Result<T, Error<E>>),
    /// The session means another table than those before it.
    Moved,
}

/// An open transaction that holds the token, if the run has one; or how the attempt ended before that.
pub(super) async fn begin<DB: Backend, T, E>(
    job: &Job<'_, DB, T>,
    mut clock: Pin<&mut Sleep>,
    mut forget_plans: bool,
    ambiguity: &mut CommitAmbiguity,
) -> Result<OpenTransaction<DB>, Attempt<T, E>> {
    let settings = &job.settings;
    let label = settings.label;
    // Each idle session of the pool may find another table.
    let mut astray = job.pool.size();
    loop {
        ambiguity.granted = job.token.is_none();
        let mut waiting = Waiting::new();
        let opened = run_until(clock.as_mut(), pin!(open_transaction(job, forget_plans, &mut waiting))).await;
        let (mut session, mark) = opened.map_err(|Late| Attempt::Late(waiting.into_failure()))??;
        let Some(token) = &job.token else {
            return Ok(OpenTransaction { session, mark, result_place: None });
        };
        let claimed = run_until(clock.as_mut(), pin!(claim(&mut session, job, token, ambiguity))).await;
        match claimed {
            Ok(Ok(Claimed::Granted(place))) => {
                return Ok(OpenTransaction { session, mark, result_place: Some(place) });
            }
            Ok(Ok(Claimed::Moved)) => {
                tracing::warn!(
                    label,
                    "a session of the pool finds another token table than before; the session is closed"
                );
                session.close().await;
                if astray == 0 {
                    return Err(Attempt::Failed(Error::Misuse(Misuse::TokenTableMoved { label })));
                }
                astray -= 1;
            }
            Ok(Ok(Claimed::Stored(stored))) => {
                session.rollback().await;
                job.permit.release();
                // Under another label it is the commit of another run for certain.
                let reused = matches!(stored, Err(Error::Misuse(Misuse::TokenReused { .. })));
                if let Some(lost) = ambiguity.lost_commit.take().filter(|_| !reused) {
                    Shield::new(lost.hooks.run(label, settings.policy.hook_timeout)).await;
                }
                return Err(stored.map_or_else(Attempt::Failed, Attempt::Done));
            }
            Ok(Err(Attempt::Again(failure))) => {
                session.end_after(settings, &failure).await;
                // After all plans were made anew, a second stale plan comes from another migration.
                if failure.class() != Class::StalePlan || forget_plans {
                    return Err(Attempt::Again(failure));
                }
                forget_plans = true;
            }
            Ok(Err(failed)) => {
                session.rollback().await;
                return Err(failed);
            }
            Err(Late) => {
                session.rollback().await;
                let text = "another run with the same token, or a lock on the table of tokens";
                return Err(Attempt::Late(Failure::local(Class::Timeout, text)));
            }
        }
    }
}

/// A connection with an open transaction.
async fn open_transaction<DB: Backend, T, E>(
    job: &Job<'_, DB, T>,
    forget_plans: bool,
    waiting: &mut Waiting,
) -> Result<(Session<DB>, Option<Mark>), Attempt<T, E>> {
    let settings = &job.settings;
    // BEGIN tests the connection. A dead one does not count as an attempt.
    let mut idle = IdleConnections::idle_in(job.pool);
    loop {
        let connection = match acquire(job.pool, settings.label, waiting).await {
            Ok(connection) => connection,
            Err(NoConnection { error, waited: true }) => return Err(Attempt::Failed(Error::Pool(error))),
            // No statement was sent yet. A server that is just starting, or behind a proxy, may close a
            // new connection.
            Err(NoConnection { error, waited: false }) => {
                return Err(fail_to_open::<DB, T, E>(settings, error));
            }
        };
        waiting.set("the database had not answered BEGIN");
        let mut session = Session::new(connection, job.pool, job.permit.clone());
        let error = match send_begin(&mut session, job, forget_plans).await {
            Ok(mark) => return Ok((session, mark)),
            Err(error) => PoolError::new(job.pool, error),
        };
        if error.driver().as_database_error().is_some_and(DB::is_inside) {
            session.rollback().await;
            let misuse = Misuse::OpenTransaction { label: settings.label };
            return Err(Attempt::Failed(Error::Misuse(misuse)));
        }
        let failure = error.failure::<DB>();
        session.end_after(settings, &failure).await;
        if !idle.skip_dead(&failure) {
            return Err(fail_to_open::<DB, T, E>(settings, error));
        }
        *waiting = Waiting::new();
    }
}

/// Sends BEGIN.
async fn send_begin<DB: Backend, T>(
    session: &mut Session<DB>,
    job: &Job<'_, DB, T>,
    forget_plans: bool,
) -> Result<Option<Mark>, sqlx::Error> {
    let settings = &job.settings;
    if forget_plans {
        session.forget_plans().await?;
    }
    // A token settles the question better than the server's memory of transaction ids.
    let marked = settings.policy.look_up_lost_commits && !settings.read_only && job.token.is_none();
    session.begin(settings, marked).await
}

/// A statement of this crate was refused, before the closure ran.
fn fail_to_open<DB: Backend, T, E>(settings: &Settings, error: PoolError) -> Attempt<T, E> {
    let failure = error.failure::<DB>();
    if settings.retries(failure.class()) {
        Attempt::Again(failure)
    } else {
        Attempt::Failed(Error::Pool(error))
    }
}

/// Takes the token, or reads what an earlier run stored with it.
async fn claim<DB: Backend, T, E>(
    session: &mut Session<DB>,
    job: &Job<'_, DB, T>,
    token: &Token<T>,
    ambiguity: &mut CommitAmbiguity,
) -> Result<Claimed<T, E>, Attempt<T, E>> {
    let (pool, label, locals) = (job.pool, job.settings.label, &job.settings.locals);
    let named = !job.settings.policy.behind_pooler;
    let name = token.table.name::<DB>().map_err(|misuse| Attempt::Failed(Error::Misuse(misuse)))?;
    let floats = token.table.is_found_by_session::<DB>();
    let claimed = async {
        let claim = DB::claim_token(session.connection(), &name, &token.text, label, named).await?;
        let home = match &claim {
            Claim::Fresh(home) | Claim::Stored { home, .. } => home,
            Claim::Moving => return Ok((claim, None)),
        };
        let table = match home.table.filter(|_| floats) {
            Some(number) => found::whole_name(session.connection(), pool, &name, number).await?,
            None => Some(Arc::from(name.as_str())),
        };
        Ok((claim, table))
    };
    match claimed.await {
        Ok((Claim::Moving, _)) => Err(Attempt::Again(Failure::local(
            Class::Serialization,
            "the token was purged while it was looked up",
        ))),
        Ok((_, None)) => Ok(Claimed::Moved),
        Ok((Claim::Fresh(home), Some(table))) => {
            // The token was free, so no earlier attempt was or will be committed.
            ambiguity.lost_commit = None;
            ambiguity.granted = true;
            if !locals.values.is_empty() {
                let made = session.command(AssertSqlSafe(DB::locals_text(locals))).await;
                made.map_err(|error| fail_to_open::<DB, T, E>(&job.settings, PoolError::new(pool, error)))?;
                session.role_changed = locals.change_role();
            }
            Ok(Claimed::Granted(ResultPlace { table, role: home.role }))
        }
        Ok((Claim::Stored { label: stored, .. }, _)) if stored != label => {
            Ok(Claimed::Stored(Err(Error::Misuse(Misuse::TokenReused { label }))))
        }
        Ok((Claim::Stored { result, .. }, _)) => {
            Ok(Claimed::Stored((token.decode)(&result).map_err(Error::ResultUnreadable)))
        }
        // The pool has used the table before; this session does not see it or may not use it.
        Err(sqlx::Error::Database(error))
            if (DB::lacks_table(&*error) || DB::forbids(&*error)) && floats && found::knows(pool, &name) =>
        {
            Ok(Claimed::Moved)
        }
        Err(error) => {
            let failure = Failure::of::<DB>(&error);
            let again = match failure.class() {
                // A run with this token has not ended yet, or its server side has not: wait on.
                Class::LockTimeout | Class::Timeout => true,
                // A migration of the token table has made this crate's own statement stale.
                Class::StalePlan => true,
                class => Policy::payments().retries(class),
            };
            let failed = || Attempt::Failed(Error::Pool(PoolError::new(job.pool, error)));
            Err(if again { Attempt::Again(failure) } else { failed() })
        }
    }
}
