//! One connection that is, or may be, inside a transaction.
//!
//! Invariant: the connection goes back to the pool only after COMMIT or ROLLBACK was answered with
//! success. In every other case (drop, cancelled BEGIN, failed or unanswered ROLLBACK) it is rolled
//! back by a task that owns it, or closed. So the next borrower never meets an open transaction.

use std::mem;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::SqlSafeStr;
use sqlx::pool::PoolConnection;
use tokio::runtime::Handle;

use crate::admission::Place;
use crate::backend::{Backend, Mark};
use crate::classify::{Class, Failure};
use crate::settings::Settings;

/// How long a rollback, or the goodbye of a closing connection, may take.
const CLEANUP: Duration = Duration::from_secs(5);

/// A borrowed connection from just before BEGIN on.
pub(crate) struct Session<DB: Backend> {
    connection: Option<PoolConnection<DB>>,
    runtime: Handle,
    /// Whether the session was made read-only for this run, and has to be made writable at its end.
    narrowed: bool,
    /// Whether a statement may have changed the role, up to the end of the transaction.
    pub(crate) role_changed: bool,
    /// Held until the rollback of a dropped run is done: up to then the run has its locks.
    place: Place,
}

/// How the database answered COMMIT.
#[derive(Debug)]
pub(crate) enum Commit {
    /// Durable.
    Done,
    /// Definitely not committed.
    Refused(Failure),
    /// No answer, or one that leaves it open.
    Lost(Failure),
}

impl<DB: Backend> Session<DB> {
    /// Takes charge of the connection. From here on a drop cleans up.
    pub(crate) fn new(connection: PoolConnection<DB>, place: Place) -> Self {
        Self {
            connection: Some(connection),
            runtime: Handle::current(),
            narrowed: false,
            role_changed: false,
            place,
        }
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
        DB::begin(self.connection(), settings, marked).await
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
    pub(crate) async fn commit(mut self, wait: Duration) -> Commit {
        let text = DB::commit_text(self.narrowed);
        let answer = tokio::time::timeout(wait, execute::<DB>(self.connection(), text)).await;
        match answer {
            Ok(Ok(())) => {
                self.connection = None;
                Commit::Done
            }
            Ok(Err(error)) => {
                let failure = Failure::read(&error, DB::classify);
                let open = match error.as_database_error() {
                    Some(database) => database.code().is_some_and(|code| DB::commit_left_open(&code)),
                    // Without an answer of the database nothing is known.
                    None => true,
                };
                if open {
                    self.close().await;
                    Commit::Lost(failure)
                } else {
                    self.rollback().await;
                    Commit::Refused(failure)
                }
            }
            Err(_elapsed) => {
                self.close().await;
                Commit::Lost(Failure::local(
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

    /// Rolls back; closes the connection when that fails.
    pub(crate) async fn rollback(mut self) {
        let text = DB::rollback_text(self.narrowed);
        let answer = tokio::time::timeout(CLEANUP, execute::<DB>(self.connection(), text)).await;
        if matches!(answer, Ok(Ok(()))) {
            self.connection = None;
        } else {
            self.close().await;
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
        let (runtime, narrowed, place) = (self.runtime.clone(), self.narrowed, mem::take(&mut self.place));
        let cleanup = Self { connection: Some(connection), runtime, narrowed, role_changed: false, place };
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
