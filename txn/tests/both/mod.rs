//! Tests of the promises that hold on every database.

mod commit;
mod conserve;
pub(crate) mod dropped;
mod hooks;
pub(crate) mod ledger;
mod limits;
pub(crate) mod lock;
pub(crate) mod metrics;
mod misuse;
mod once;
mod purge;
mod scope;
mod statement;

use std::time::Duration;

use probity_txn::Policy;

use super::{Bank, Database};

/// Limits that no slow machine reaches, for runs that wait for each other.
pub(crate) fn patient() -> Policy {
    let long = Duration::from_secs(600);
    Policy {
        attempts: u32::MAX,
        deadline: long,
        lock_timeout: Some(long),
        statement_timeout: Some(long),
        idle_timeout: Some(long),
        ..Policy::payments()
    }
}

/// Moves 60 from `a` to `b`.
pub(crate) async fn move_60(tx: &mut probity_txn::Tx<'_, Database>) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE accounts SET balance = balance - 60 WHERE id = 'a'").execute(&mut *tx).await?;
    sqlx::query("UPDATE accounts SET balance = balance + 60 WHERE id = 'b'").execute(&mut *tx).await?;
    Ok(())
}
