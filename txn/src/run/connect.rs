//! Borrows a connection, and finds out in time why there is none.
//!
//! sqlx's pool tries again in silence where a server refuses connections, up to its own timeout or our deadline.
//! Therefore the run opens one connection beside the pool after a short wait, to get the error of the server.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Pool};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backend::Backend;
use crate::classify::Class;
use crate::failure::Failure;
use crate::metrics;
use crate::pool_error::PoolError;

/// The time that a pool may be silent before the server is asked.
const SILENCE: Duration = Duration::from_millis(250);
/// The time that the server may take to answer the question.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of such connections at a time: many runs wait at once, and one connection is enough to learn the cause.
static AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// Names the thing that the start of an attempt is waiting for, to be told when the deadline passes.
#[derive(Debug)]
pub(super) struct Waiting(Failure);

impl Waiting {
    pub(super) fn new() -> Self {
        Self::local("the pool had no connection to give")
    }

    fn local(text: &str) -> Self {
        Self(Failure::local(Class::Timeout, text))
    }

    /// Names another thing that is waited for from now on.
    pub(super) fn set(&mut self, text: &str) {
        *self = Self::local(text);
    }

    pub(super) fn into_failure(self) -> Failure {
        self.0
    }
}

/// There is no connection.
pub(super) struct NoConnection {
    pub(super) error: PoolError,
    /// The pool waited for as long as it is allowed to. To wait again is not for us to decide.
    pub(super) waited: bool,
}

impl NoConnection {
    fn new<DB: Backend>(pool: &Pool<DB>, error: sqlx::Error) -> Self {
        let waited = matches!(error, sqlx::Error::PoolTimedOut);
        Self { error: PoolError::new(pool, error), waited }
    }
}

/// Borrows a connection. The reason why the pool gives none is logged, and noted in `waiting`, as soon as it is known.
pub(super) async fn acquire<DB: Backend>(
    pool: &Pool<DB>,
    label: &'static str,
    waiting: &mut Waiting,
) -> Result<PoolConnection<DB>, NoConnection> {
    let mut acquiring = pin!(pool.acquire());
    if let Ok(answer) = timeout(SILENCE, acquiring.as_mut()).await {
        return answer.map_err(|error| NoConnection::new(pool, error));
    }
    let reason = match select(acquiring.as_mut(), Box::pin(ask(pool))).await {
        Either::Left((answer, _)) => return answer.map_err(|error| NoConnection::new(pool, error)),
        Either::Right((reason, _)) => PoolError::new(pool, reason),
    };
    waiting.0 = reason.failure::<DB>();
    if !matches!(reason.driver(), sqlx::Error::PoolTimedOut) {
        metrics::warn_no_connection(label, &reason);
    }
    match acquiring.await {
        Ok(connection) => Ok(connection),
        // The pool only says that it waited; the server has said why.
        Err(sqlx::Error::PoolTimedOut) => Err(NoConnection { error: reason, waited: true }),
        Err(error) => Err(NoConnection::new(pool, error)),
    }
}

/// Makes a connection beside the pool and returns the error that it met; if it met none, the pool just has none to
/// spare.
async fn ask<DB: Backend>(pool: &Pool<DB>) -> sqlx::Error {
    // The semaphore is never closed.
    let _permit = AT_A_TIME.acquire().await;
    match timeout(PATIENCE, DB::Connection::connect_with(&pool.connect_options())).await {
        Ok(Ok(connection)) => {
            let _ = timeout(PATIENCE, connection.close()).await;
            sqlx::Error::PoolTimedOut
        }
        Ok(Err(error)) => error,
        Err(_elapsed) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
    }
}
