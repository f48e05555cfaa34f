//! Ends a statement that nobody waits for any more, on a connection that nobody else uses.
//!
//! Invariant: the connection is one beside the pool, because the pool may have none to spare while its statements go on;
//! and few are made at a time, because many runs are abandoned at once when a database is slow.

use sqlx::{Connection, Pool};
use tokio::sync::Semaphore;

use crate::backend::{Backend, TxAddress};

static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// Cancels the statement of the transaction at `address`. A failure changes nothing: the statement goes on, and ends by
/// its own timeout.
pub(crate) async fn statement<DB: Backend>(pool: &Pool<DB>, address: TxAddress) {
    // Never closed.
    let Ok(_permit) = AT_A_TIME.acquire().await else { return };
    if let Err(error) = cancel::<DB>(pool, address).await {
        tracing::debug!(%error, "cannot cancel an abandoned statement");
    }
}

async fn cancel<DB: Backend>(pool: &Pool<DB>, address: TxAddress) -> Result<(), sqlx::Error> {
    let mut connection = DB::Connection::connect_with(&pool.connect_options()).await?;
    DB::cancel(&mut connection, address).await?;
    connection.close().await
}
