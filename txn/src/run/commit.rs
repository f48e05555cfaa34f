//! The end of an attempt whose closure returned `Ok`.
//!
//! Invariant: it runs to its end even when its run was dropped, so that each COMMIT that was
//! sent is decided and its hooks run.

use std::time::Duration;

use sqlx::Pool;
use tokio::time::{Instant, timeout_at};

use crate::backend::{Backend, CommitStatus, Mark};
use crate::failure::Failure;
use crate::run::admission::Permit;
use crate::run::deadline;
use crate::run::idle_connections::IdleConnections;
use crate::session::{CommitAnswer, Session};
use crate::tx::hooks::Hooks;

/// The owned parts of an attempt that its end needs.
pub(crate) struct CommitJob<DB: Backend> {
    pub(crate) session: Session<DB>,
    pub(crate) hooks: Hooks,
    pub(crate) mark: Option<Mark>,
    pub(crate) pool: Pool<DB>,
    pub(crate) label: &'static str,
    pub(crate) read_only: bool,
    pub(crate) wait: Duration,
    pub(crate) hook_timeout: Duration,
    pub(crate) permit: Permit,
}

/// The outcome of a COMMIT.
#[derive(Debug)]
pub(crate) enum CommitOutcome {
    /// The transaction is durable, and the hooks ran.
    Committed,
    /// The database refused.
    Refused(Failure),
    /// The answer was lost, and nothing was written.
    Aborted(Failure),
    /// The answer was lost, and the outcome is unknown. The hooks are given back.
    Unknown(Failure, Hooks),
}

pub(crate) async fn commit<DB: Backend>(job: CommitJob<DB>) -> CommitOutcome {
    let CommitJob { session, hooks, mark, pool, label, read_only, wait, hook_timeout, permit } = job;
    let cause = match session.commit(wait).await {
        CommitAnswer::Done => {
            permit.release();
            hooks.run(label, hook_timeout).await;
            return CommitOutcome::Committed;
        }
        CommitAnswer::Refused(failure) => return CommitOutcome::Refused(failure),
        // Without writes there is nothing that could have been kept.
        CommitAnswer::Lost(failure) if read_only => return CommitOutcome::Aborted(failure),
        CommitAnswer::Lost(failure) => failure,
    };
    tracing::warn!(label, %cause, "COMMIT got no answer that settles its outcome");
    let fate = match &mark {
        Some(mark) => resolve(&pool, mark, deadline::after(Instant::now(), wait)).await,
        None => CommitStatus::Unknown,
    };
    match fate {
        CommitStatus::Committed => {
            permit.release();
            hooks.run(label, hook_timeout).await;
            CommitOutcome::Committed
        }
        CommitStatus::Aborted => CommitOutcome::Aborted(cause),
        CommitStatus::InProgress | CommitStatus::Unknown => CommitOutcome::Unknown(cause, hooks),
    }
}

/// Asks until the server knows, or until `limit`.
async fn resolve<DB: Backend>(pool: &Pool<DB>, mark: &Mark, limit: Instant) -> CommitStatus {
    let mut pause = Duration::from_millis(10);
    loop {
        match timeout_at(limit, ask(pool, mark)).await {
            Ok(Ok(CommitStatus::InProgress)) => {}
            Ok(Ok(fate)) => return fate,
            // The server may be restarting.
            Ok(Err(error)) => {
                tracing::debug!(%error, "the run cannot look up a lost COMMIT yet; it tries again")
            }
            Err(_elapsed) => return CommitStatus::Unknown,
        }
        if Instant::now() + pause >= limit {
            return CommitStatus::Unknown;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn ask<DB: Backend>(pool: &Pool<DB>, mark: &Mark) -> Result<CommitStatus, sqlx::Error> {
    let mut idle = IdleConnections::idle_in(pool);
    loop {
        let mut connection = pool.acquire().await?;
        let answer = DB::commit_status(&mut connection, mark).await;
        let Err(error) = &answer else { return answer };
        // The connection is dead, or leads to a server that cannot answer: a standby, after a failover.
        connection.close_on_drop();
        if !idle.skip_dead(&Failure::of::<DB>(error)) {
            return answer;
        }
    }
}
