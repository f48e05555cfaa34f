//! The end of an attempt whose closure returned `Ok`.
//!
//! Invariant: runs to its end even when nobody waits for it any more, so that each COMMIT that was
//! sent is decided and its hooks run.

use std::time::Duration;

use sqlx::Pool;
use tokio::time::{Instant, timeout_at};

use crate::admission::Place;
use crate::backend::{Backend, Fate, Mark};
use crate::classify::Failure;
use crate::deadline;
use crate::hooks::Hooks;
use crate::idle_connections::Passed;
use crate::session::{Commit, Session};

/// Everything the end needs, owned.
pub(crate) struct Ending<DB: Backend> {
    pub(crate) session: Session<DB>,
    pub(crate) hooks: Hooks,
    pub(crate) mark: Option<Mark>,
    pub(crate) pool: Pool<DB>,
    pub(crate) label: &'static str,
    pub(crate) read_only: bool,
    pub(crate) wait: Duration,
    pub(crate) hook_timeout: Duration,
    pub(crate) place: Place,
}

/// How the attempt ended.
#[derive(Debug)]
pub(crate) enum Conclusion {
    /// Durable, and the hooks ran.
    Committed,
    /// The database refused.
    Refused(Failure),
    /// The answer was lost, and nothing was written.
    Aborted(Failure),
    /// The answer was lost, and nobody knows. The hooks are given back.
    Unknown(Failure, Hooks),
}

pub(crate) async fn conclude<DB: Backend>(ending: Ending<DB>) -> Conclusion {
    let Ending { session, hooks, mark, pool, label, read_only, wait, hook_timeout, place } = ending;
    let cause = match session.commit(wait).await {
        Commit::Done => {
            place.leave();
            hooks.run(label, hook_timeout).await;
            return Conclusion::Committed;
        }
        Commit::Refused(failure) => return Conclusion::Refused(failure),
        // Without writes there is nothing that could have been kept.
        Commit::Lost(failure) if read_only => return Conclusion::Aborted(failure),
        Commit::Lost(failure) => failure,
    };
    tracing::warn!(label, %cause, "COMMIT got no answer");
    let fate = match &mark {
        Some(mark) => resolve(&pool, mark, deadline::after(Instant::now(), wait)).await,
        None => Fate::Unknown,
    };
    match fate {
        Fate::Committed => {
            place.leave();
            hooks.run(label, hook_timeout).await;
            Conclusion::Committed
        }
        Fate::Aborted => Conclusion::Aborted(cause),
        Fate::InProgress | Fate::Unknown => Conclusion::Unknown(cause, hooks),
    }
}

/// Asks until the server knows, or until `limit`.
async fn resolve<DB: Backend>(pool: &Pool<DB>, mark: &Mark, limit: Instant) -> Fate {
    let mut pause = Duration::from_millis(10);
    loop {
        match timeout_at(limit, ask(pool, mark)).await {
            Ok(Ok(Fate::InProgress)) => {}
            Ok(Ok(fate)) => return fate,
            // The server may be on its way back.
            Ok(Err(error)) => tracing::debug!(%error, "cannot ask about a lost commit yet"),
            Err(_elapsed) => return Fate::Unknown,
        }
        if Instant::now() + pause >= limit {
            return Fate::Unknown;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn ask<DB: Backend>(pool: &Pool<DB>, mark: &Mark) -> Result<Fate, sqlx::Error> {
    let mut passed = Passed::lying_in(pool);
    loop {
        let mut connection = pool.acquire().await?;
        let answer = DB::fate(&mut connection, mark).await;
        let Err(error) = &answer else { return answer };
        // It is dead, or leads to a server that cannot tell: a standby, after a failover.
        connection.close_on_drop();
        if !passed.over(&Failure::read(error, DB::classify)) {
            return answer;
        }
    }
}
