//! What holds on every database.

mod commit;
mod conserve;
pub(crate) mod dropped;
mod hooks;
pub(crate) mod ledger;
mod limits;
pub(crate) mod lock;
mod misuse;
mod once;
mod purge;
mod scope;
mod statement;
pub(crate) mod telemetry;

use super::{Bank, Database};

/// Moves 60 from `a` to `b`.
async fn move_60(tx: &mut probity_txn::Tx<'_, Database>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance - 60 WHERE id = 'a'").execute(&mut *tx).await?;
    sqlx::query("UPDATE accounts SET balance = balance + 60 WHERE id = 'b'").execute(&mut *tx).await?;
    Ok(())
}
