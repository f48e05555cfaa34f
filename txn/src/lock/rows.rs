//! Takes row locks.

use std::collections::BTreeSet;

use sqlx::{Arguments as _, AssertSqlSafe, Executor as _, SqlSafeStr as _};
use tokio::time::Instant;

use super::error::LockError;
use super::key::LockKey;
use super::provable::{check_provable, refuse};
use super::sql::{Keys, Names, select, select_equal};
use super::witness::{Lockable, Locked, TryLock};
use crate::backend::Backend;
use crate::backend::lock_syntax::Wait;
use crate::classify::Class;
use crate::metrics;
use crate::tx::handle::Tx;
use crate::tx::statement::Inspected;

/// The number of rows that one call locks. Databases take more parameters; a list this long deserves batches anyway.
const ROWS_MAX: usize = 1000;

impl<'b, DB: Backend> Tx<'b, DB> {
    /// Locks one row until the transaction ends, waiting for it if necessary (`FOR NO KEY UPDATE`; on
    /// SQLite the transaction holds the whole database since BEGIN).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as with any statement.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(pool: &sqlx::SqlitePool) -> Result<(), probity_txn::Error<sqlx::Error>> {
    /// struct Account;
    ///
    /// impl probity_txn::lock::Lockable for Account {
    ///     type Key = String;
    ///     const TABLE: &'static str = "accounts";
    /// }
    ///
    /// probity_txn::on(pool, "withdraw")
    ///     .run(async |tx| {
    ///         let account = tx.lock_one::<Account>("ACC-1").await?;
    ///         let withdraw = "UPDATE accounts SET balance = balance - 60 WHERE id = ?";
    ///         sqlx::query(withdraw).bind(account.key()).execute(&mut *tx).await?;
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`LockError::Missing`] without such a row; [`LockError::NoSuchTable`] without such a table;
    /// [`LockError::KeyType`] if the key is of another type than its column;
    /// [`LockError::RepeatableRead`] and [`LockError::ReadOnly`] where a lock would be a false comfort;
    /// [`LockError::Database`] for instance when the lock timeout passed.
    pub async fn lock_one<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        key: impl Into<R::Key> + Send,
    ) -> Result<Locked<'b, R>, LockError> {
        self.lock_row(key.into(), Wait::UntilFree).await
    }

    /// Locks a row as [`lock_one`](Tx::lock_one) does, without waiting: a row that another transaction holds is an
    /// error, and the transaction cannot be committed (`NOWAIT`).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as in [`lock_one`](Tx::lock_one).
    ///
    /// # Errors
    ///
    /// [`LockError::Held`], and those of [`lock_one`](Tx::lock_one).
    pub async fn lock_one_nowait<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        key: impl Into<R::Key> + Send,
    ) -> Result<Locked<'b, R>, LockError> {
        self.lock_row(key.into(), Wait::Never).await.map_err(|error| match error {
            LockError::Database(sqlx::Error::Database(database))
                if DB::classify(&*database) == Class::LockTimeout =>
            {
                LockError::Held { table: R::TABLE }
            }
            other => other,
        })
    }

    /// Locks the row if it is free, and says what it found: a row that another transaction holds is
    /// an answer here, and the transaction goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as in [`lock_one`](Tx::lock_one).
    ///
    /// # Errors
    ///
    /// The errors of [`lock_one`](Tx::lock_one), except for a missing row.
    pub async fn try_lock_one<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        key: impl Into<R::Key> + Send,
    ) -> Result<TryLock<'b, R>, LockError> {
        let keys = BTreeSet::from([key.into()]);
        let mut locked = self.select::<R>(&keys, Some(Wait::Skip)).await?;
        if let Some(key) = locked.pop() {
            return Ok(TryLock::Locked(Locked::new(key, self.state.number)));
        }
        let there = self.select::<R>(&keys, None).await?;
        Ok(if there.is_empty() { TryLock::Missing } else { TryLock::Held })
    }

    /// Locks several rows in one statement, in the order of their keys, for any order of the arguments. Runs that lock
    /// their rows by one call of this never deadlock with each other.
    ///
    /// The witnesses come in ascending order, without duplicates, with the keys as the database has them: those
    /// of a `CHAR(n)` have blanks behind them, which costs a second statement.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as in [`lock_one`](Tx::lock_one).
    ///
    /// # Errors
    ///
    /// [`LockError::Missing`] if any row is not there; [`LockError::TooMany`] beyond 1000 keys; and
    /// those of [`lock_one`](Tx::lock_one).
    pub async fn lock_many<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<R::Key>, IntoIter: Send> + Send,
    ) -> Result<Vec<Locked<'b, R>>, LockError> {
        let keys: BTreeSet<R::Key> = keys.into_iter().map(Into::into).collect();
        let locked = self.select::<R>(&keys, Some(Wait::UntilFree)).await?;
        let found: BTreeSet<_> = locked.iter().collect();
        let absent = keys.iter().filter(|key| !found.contains(key)).count();
        // Rust and the database need not agree on what is equal: CHAR(n) comes back with blanks behind it.
        if absent > 0 && locked.iter().any(|key| !keys.contains(key)) {
            return self.select_equal::<R>(&keys).await;
        }
        match absent {
            0 => Ok(self.witnesses(locked)),
            missing => Err(LockError::Missing { table: R::TABLE, missing }),
        }
    }

    /// Locks those of the rows that are free, and leaves out the others (`SKIP LOCKED`). For queues;
    /// never for balances or totals, which would lack what others hold.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as in [`lock_one`](Tx::lock_one).
    ///
    /// # Errors
    ///
    /// The errors of [`lock_many`](Tx::lock_many), except for missing rows.
    pub async fn lock_free<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<R::Key>, IntoIter: Send> + Send,
    ) -> Result<Vec<Locked<'b, R>>, LockError> {
        let keys: BTreeSet<R::Key> = keys.into_iter().map(Into::into).collect();
        let locked = self.select::<R>(&keys, Some(Wait::Skip)).await?;
        Ok(self.witnesses(locked))
    }

    /// Takes a witness of an enclosing scope, or of the transaction itself, into this scope.
    ///
    /// `None` if the witness belongs to another transaction.
    pub fn adopt<R: Lockable>(&self, outer: &Locked<'_, R>) -> Option<Locked<'b, R>> {
        (outer.transaction == self.state.number).then(|| Locked::new(outer.key().clone(), outer.transaction))
    }

    fn witnesses<R: Lockable>(&self, keys: Vec<R::Key>) -> Vec<Locked<'b, R>> {
        keys.into_iter().map(|key| Locked::new(key, self.state.number)).collect()
    }

    async fn lock_row<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        key: R::Key,
        wait: Wait,
    ) -> Result<Locked<'b, R>, LockError> {
        let mut found = self.select::<R>(&BTreeSet::from([key]), Some(wait)).await?;
        match found.pop() {
            Some(key) => Ok(Locked::new(key, self.state.number)),
            None => Err(LockError::Missing { table: R::TABLE, missing: 1 }),
        }
    }

    /// The keys that are there, locked as asked.
    async fn select<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        keys: &BTreeSet<R::Key>,
        lock: Option<Wait>,
    ) -> Result<Vec<R::Key>, LockError> {
        const { Names::<R>::LEGAL };
        if keys.len() > ROWS_MAX {
            let remedy = "at most 1000 rows can be locked at once; lock in batches of ascending keys";
            return Err(refuse(&mut *self.state, LockError::TooMany { limit: ROWS_MAX }, remedy));
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        check_provable(&mut *self.state)?;
        let suffix = match (DB::LOCKS, lock) {
            (Some(syntax), Some(wait)) => syntax.suffix(wait),
            _ => "",
        };
        let text = select::<R>(key_form::<DB, R>(keys), suffix);
        let asked = Instant::now();
        let answer = self.ask::<R>(text, keys).await;
        if lock.is_some() {
            metrics::record_lock_wait(self.label(), asked.elapsed());
        }
        let rows = answer?;
        rows.iter().map(DB::first_column).collect::<Result<_, _>>().map_err(explain::<DB, R>)
    }

    /// The rows of the keys by the database's idea of equality, locked: those of before, and any that came
    /// since and are free. It does not wait, so it cannot meet the order of another run.
    async fn select_equal<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        keys: &BTreeSet<R::Key>,
    ) -> Result<Vec<Locked<'b, R>>, LockError> {
        let text =
            select_equal::<R>(key_form::<DB, R>(keys), DB::LOCKS.map_or("", |syntax| syntax.skip_in_join));
        // One row for each key that has one.
        let rows = self.ask::<R>(text, keys).await?;
        let missing = keys.len().saturating_sub(rows.len());
        if missing > 0 {
            return Err(LockError::Missing { table: R::TABLE, missing });
        }
        let mut found: Vec<R::Key> =
            rows.iter().map(DB::first_column).collect::<Result<_, _>>().map_err(explain::<DB, R>)?;
        found.dedup();
        Ok(self.witnesses(found))
    }

    async fn ask<R: Lockable<Key: LockKey<DB>>>(
        &mut self,
        text: String,
        keys: &BTreeSet<R::Key>,
    ) -> Result<Vec<DB::Row>, LockError> {
        let mut arguments = DB::Arguments::default();
        match key_form::<DB, R>(keys) {
            Keys::Array(_) => R::Key::add_all(keys.iter().cloned().collect(), &mut arguments),
            Keys::Each(_) => keys.iter().try_for_each(|key| arguments.add(key.clone())),
        }
        .map_err(sqlx::Error::Encode)?;
        let statement = Inspected::from_parts(AssertSqlSafe(text).into_sql_str(), arguments);
        self.fetch_all(statement).await.map_err(explain::<DB, R>)
    }
}

/// Chooses the form of the keys. One key is a parameter like any other. Several are an array where there are
/// arrays: with a text for each count of them, they would push the application's own statements out of the
/// connection's cache.
fn key_form<DB: Backend, R: Lockable<Key: LockKey<DB>>>(keys: &BTreeSet<R::Key>) -> Keys {
    match DB::LOCKS {
        Some(syntax) if keys.len() > 1 && <R::Key as LockKey<DB>>::ONE_PARAMETER => Keys::Array(syntax),
        _ => Keys::Each(keys.len()),
    }
}

/// Explains the failure of a lock on `R`.
fn explain<DB: Backend, R: Lockable>(source: sqlx::Error) -> LockError {
    let (table, key) = (R::TABLE, R::KEY);
    match &source {
        sqlx::Error::Database(database) if DB::names_nothing(&**database) => {
            LockError::NoSuchTable { table, key, source }
        }
        sqlx::Error::Database(database) if DB::compares_nothing(&**database) => {
            LockError::KeyType { table, key, source }
        }
        sqlx::Error::ColumnDecode { .. } => LockError::KeyType { table, key, source },
        _ => LockError::Database(source),
    }
}
