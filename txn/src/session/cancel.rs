//! Ends an abandoned statement, over a connection of its own.
//!
//! Invariant: the connection is one beside the pool, because the pool may have no free one while its statements go on;
//! and few are made at a time, because many runs are abandoned at once when a database is slow.

use sqlx::{Connection, Pool};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::backend::{Backend, TxAddress};

static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// A connection beside the pool, over which nothing was sent yet.
pub(crate) struct Canceller<DB: Backend> {
    connection: DB::Connection,
    _permit: SemaphorePermit<'static>,
}

impl<DB: Backend> Canceller<DB> {
    /// Connects beside the pool. Dropping the future leaves nothing behind. Without a connection the statement goes
    /// on, and ends by its own timeout.
    pub(crate) async fn connect(pool: &Pool<DB>) -> Option<Self> {
        // The semaphore is never closed.
        let permit = AT_A_TIME.acquire().await.ok()?;
        match DB::Connection::connect_with(&pool.connect_options()).await {
            Ok(connection) => Some(Self { connection, _permit: permit }),
            Err(error) => {
                report(&error);
                None
            }
        }
    }

    /// Cancels the statement of the transaction at `address`, and waits until the server has done it.
    pub(crate) async fn cancel(mut self, address: TxAddress) {
        let cancelled = DB::cancel(&mut self.connection, address).await;
        if let Err(error) = cancelled {
            report(&error);
        }
        let _ = self.connection.close().await;
    }
}

fn report(error: &sqlx::Error) {
    tracing::debug!(%error, "the abandoned statement could not be cancelled");
}
