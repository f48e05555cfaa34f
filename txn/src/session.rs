//! One connection that is, or may be, inside a transaction.
//!
//! Invariant: the connection goes back to the pool only after COMMIT or ROLLBACK was answered with
//! success. In every other case (drop, cancelled BEGIN, failed or unanswered ROLLBACK) it is rolled
//! back by a task that owns it, or closed. Therefore the next borrower never finds an open transaction.

use std::mem;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::future::{Either, join, select};
use sqlx::pool::PoolConnection;
use sqlx::{Connection as _, Pool, SqlSafeStr};
use tokio::runtime::Handle;

use crate::backend::{Backend, Mark, TxAddress};
use crate::classify::Class;
use crate::failure::Failure;
use crate::run::admission::Permit;
use crate::settings::Settings;

mod cancel;

use cancel::Canceller;

/// The time that a rollback, or the goodbye of a closing connection, may take.
const CLEANUP: Duration = Duration::from_secs(5);

/// The time that a rollback waits for the statement before it, until that is cancelled. Most end by themselves.
const GRACE: Duration = Duration::from_millis(50);

/// A borrowed connection from just before BEGIN on.
pub(crate) struct Session<DB: Backend> {
    connection: Option<PoolConnection<DB>>,
    /// The pool that lent the connection. Another connection with its options cancels what this one is busy with.
    pool: Pool<DB>,
    /// The address of the open transaction, if a statement of it can be cancelled.
    address: Option<TxAddress>,
    runtime: Handle,
    /// The session was made read-only for this run, and has to be made writable at its end.
    narrowed: bool,
    /// A statement may have changed the role, up to the end of the transaction.
    pub(crate) role_changed: bool,
    /// The permit is held until the rollback of a dropped run is done: up to then the run has its locks.
    permit: Permit,
}

/// The answer of the database to COMMIT.
#[derive(Debug)]
pub(crate) enum CommitAnswer {
    /// The transaction is durable.
    Done,
    /// The transaction is definitely not committed.
    Refused(Failure),
    /// There was no answer, or one that leaves the outcome open.
    Lost(Failure),
}

impl<DB: Backend> Session<DB> {
    /// Takes charge of the connection. From here on a drop cleans up.
    pub(crate) fn new(connection: PoolConnection<DB>, pool: &Pool<DB>, permit: Permit) -> Self {
        Self {
            connection: Some(connection),
            pool: pool.clone(),
            address: None,
            runtime: Handle::current(),
            narrowed: false,
            role_changed: false,
            permit,
        }
    }

    /// Forgets all plans, so that none of them is stale.
    pub(crate) async fn forget_plans(&mut self) -> Result<(), sqlx::Error> {
        // On the heap: it happens once after a migration, and would make every run's future larger.
        Box::pin(self.connection().clear_cached_statements()).await
    }

    /// Opens the transaction.
    pub(crate) async fn begin(
        &mut self,
        settings: &Settings,
        marked: bool,
    ) -> Result<Option<Mark>, sqlx::Error> {
        if settings.read_only {
            self.narrowed = DB::narrows(self.connection()).await?;
        }
        let begun = DB::begin(self.connection(), settings, marked).await?;
        self.address = begun.address;
        Ok(begun.mark)
    }

    /// The connection.
    #[expect(
        clippy::expect_used,
        reason = "only the methods that consume the session and its drop take the connection"
    )]
    pub(crate) fn connection(&mut self) -> &mut DB::Connection {
        self.connection.as_mut().expect("the connection is here until the session ends")
    }

    /// Keeps the connection from going back to its pool when the transaction is over.
    pub(crate) fn close_afterwards(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }

    /// Sends COMMIT and waits for the answer.
    pub(crate) async fn commit(mut self, wait: Duration) -> CommitAnswer {
        let text = DB::commit_text(self.narrowed);
        let answer = tokio::time::timeout(wait, execute::<DB>(self.connection(), text)).await;
        match answer {
            Ok(Ok(())) => {
                self.connection = None;
                CommitAnswer::Done
            }
            Ok(Err(error)) => {
                let failure = Failure::of::<DB>(&error);
                let open = match error.as_database_error() {
                    Some(database) => DB::leaves_commit_open(database),
                    // Without an answer of the database nothing is known.
                    None => true,
                };
                if open {
                    self.close().await;
                    CommitAnswer::Lost(failure)
                } else {
                    self.rollback().await;
                    CommitAnswer::Refused(failure)
                }
            }
            Err(_elapsed) => {
                self.close().await;
                CommitAnswer::Lost(Failure::local(
                    Class::ConnectionLost,
                    "the database did not answer COMMIT in time",
                ))
            }
        }
    }

    /// Runs text that takes no parameters, in the open transaction.
    pub(crate) async fn command(&mut self, sql: impl SqlSafeStr + Send) -> Result<(), sqlx::Error> {
        execute::<DB>(self.connection(), sql).await
    }

    /// Rolls back, and cancels the statement before it if that goes on; closes the connection when that fails.
    pub(crate) async fn rollback(mut self) {
        // Boxed, because few runs need it, and it would make every run's future larger.
        if tokio::time::timeout(CLEANUP, Box::pin(self.try_rollback())).await == Ok(true) {
            self.connection = None;
        } else {
            self.close().await;
        }
    }

    /// Rolls back; tells whether the transaction is over, and no cancellation of a statement of it is under way.
    async fn try_rollback(&mut self) -> bool {
        let text = DB::rollback_text(self.narrowed);
        let (address, pool) = (self.address, self.pool.clone());
        let connection = self.connection();
        let (answer, cancelled) = {
            let mut rollback = pin!(execute::<DB>(connection, text));
            match (tokio::time::timeout(GRACE, rollback.as_mut()).await, address) {
                (Ok(answer), _) => (answer, false),
                (Err(_elapsed), None) => (rollback.await, false),
                (Err(_elapsed), Some(address)) => {
                    match select(rollback, Box::pin(Canceller::connect(&pool))).await {
                        // The statement has ended by itself, and nothing was sent that could still arrive.
                        Either::Left((answer, _)) => (answer, false),
                        Either::Right((None, rollback)) => (rollback.await, false),
                        Either::Right((Some(canceller), rollback)) => {
                            (join(rollback, Box::pin(canceller.cancel(address))).await.0, true)
                        }
                    }
                }
            }
        };
        match answer {
            Ok(()) if !cancelled => true,
            // The answer may be that of the statement before, and the cancellation may come late. Roll back once more, so
            // that the cancellation cannot meet a statement of the next borrower.
            Ok(()) | Err(sqlx::Error::Database(_)) => execute::<DB>(connection, text).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Rolls back, or gives the connection up if it would fail for its next borrower.
    pub(crate) async fn end_after(self, settings: &Settings, failure: &Failure) {
        if settings.spends_the_session(failure.class()) {
            self.close().await;
        } else {
            self.rollback().await;
        }
    }

    /// Gives the connection up. The server rolls back when it notices.
    pub(crate) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(CLEANUP, connection.close()).await;
        }
    }
}

impl<DB: Backend> Drop for Session<DB> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let cleanup = Self {
            connection: Some(connection),
            pool: self.pool.clone(),
            address: self.address,
            runtime: self.runtime.clone(),
            narrowed: self.narrowed,
            role_changed: false,
            permit: mem::take(&mut self.permit),
        };
        // The guard that stops the recursion when the runtime drops the task without running it.
        let mut cleanup = Cleanup(Some(cleanup));
        self.runtime.spawn(async move {
            if let Some(session) = cleanup.0.take() {
                session.rollback().await;
            }
        });
    }
}

/// A session on its way into the cleanup task.
struct Cleanup<DB: Backend>(Option<Session<DB>>);

impl<DB: Backend> Drop for Cleanup<DB> {
    fn drop(&mut self) {
        // Only a runtime that shuts down drops the task unstarted; the process keeps no pool then.
        if let Some(session) = self.0.as_mut()
            && let Some(mut connection) = session.connection.take()
        {
            let _context = session.runtime.enter();
            connection.close_on_drop();
            drop(connection);
        }
    }
}

/// Runs text that takes no parameters, unprepared.
pub(crate) async fn execute<DB: Backend>(
    connection: &mut DB::Connection,
    sql: impl SqlSafeStr + Send,
) -> Result<(), sqlx::Error> {
    let mut steps = DB::fetch_many(connection, sql.into_sql_str());
    while steps.try_next().await?.is_some() {}
    Ok(())
}
