//! Deletes old tokens.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Pool;

use super::found;
use super::{TokenTable, TokenTableError};
use crate::backend::Backend;

/// Deletes the tokens of runs that began more than `age` ago, by the database's clock, and says how
/// many that were. A younger token is never deleted.
///
/// It walks through the table in steps of 1000 tokens. Each step is a transaction of its own, so
/// no run waits long for it, and a purge that was interrupted has done what it has done. Call it
/// daily, from one place or from several.
///
/// `age` must be longer than any caller may repeat a request: a run whose token was purged runs again.
///
/// # Cancel safety
///
/// Safe: the steps that were done stay done, and the next call does the rest.
///
/// # Errors
///
/// [`TokenTableError::Moved`]; [`TokenTableError::Database`] with whatever the database answers.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::TokenTableError> {
/// const A_MONTH: std::time::Duration = std::time::Duration::from_hours(30 * 24);
/// let purged = probity_txn::purge_tokens(pool, A_MONTH).await?;
/// # let _ = purged;
/// # Ok(()) }
/// ```
pub async fn purge_tokens<DB: Backend>(pool: &Pool<DB>, age: Duration) -> Result<u64, TokenTableError> {
    TokenTable::new().purge(pool, age).await
}

impl TokenTable {
    /// Deletes old tokens from this table, as [`purge_tokens`](crate::purge_tokens) does.
    ///
    /// # Cancel safety
    ///
    /// Safe: the steps that were done stay done, and the next call does the rest.
    ///
    /// # Errors
    ///
    /// [`TokenTableError::Name`]; [`TokenTableError::Moved`]; [`TokenTableError::Database`] with whatever the
    /// database answers.
    pub async fn purge<DB: Backend>(&self, pool: &Pool<DB>, age: Duration) -> Result<u64, TokenTableError> {
        let table = self.name::<DB>().map_err(TokenTableError::Name)?;
        let table =
            if self.is_found_by_session::<DB>() { whole_name(pool, &table).await? } else { table.into() };
        Ok(purge(pool, &table, age).await?)
    }
}

/// Finds the whole name of the table whose name alone is known, as a run with a token does. A session that means
/// another table than those before it is closed.
async fn whole_name<DB: Backend>(pool: &Pool<DB>, name: &str) -> Result<Arc<str>, TokenTableError> {
    // Each idle session of the pool can be such a session.
    for _ in 0..=pool.size() {
        let mut connection = pool.acquire().await?;
        let found = match DB::table_number(&mut connection, name).await? {
            Some(number) => found::whole_name(&mut *connection, pool, name, number).await?,
            None if found::knows(pool, name) => None,
            // The purge then reports the missing table.
            None => return Ok(name.into()),
        };
        if let Some(table) = found {
            return Ok(table);
        }
        tracing::warn!(
            table = name,
            "a session of the pool finds another token table than before; the session is closed"
        );
        let _ = connection.close().await;
    }
    Err(TokenTableError::Moved { table: name.to_owned() })
}

async fn purge<DB: Backend>(pool: &Pool<DB>, table: &str, age: Duration) -> Result<u64, sqlx::Error> {
    let age = milliseconds(age);
    let mut after = String::new();
    let mut purged = 0;
    loop {
        let mut connection = pool.acquire().await?;
        match DB::purge_step(&mut connection, table, &after, age).await? {
            Some((last, deleted)) => {
                after = last;
                purged += deleted;
            }
            None => return Ok(purged),
        }
    }
}

/// Rounds up, and adds one because SQLite rounds the times it stores; at most a thousand years, which
/// every database can subtract from now.
fn milliseconds(age: Duration) -> i64 {
    const THOUSAND_YEARS: u128 = 1000 * 366 * 24 * 60 * 60 * 1000;
    let rounded = age.as_nanos().div_ceil(1_000_000) + 1;
    i64::try_from(rounded.min(THOUSAND_YEARS)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_never_rounded_down() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_micros(1500)), 3);
        assert!(milliseconds(Duration::MAX) > 1000 * 365 * 24 * 60 * 60 * 1000);
    }
}
