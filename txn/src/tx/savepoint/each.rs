//! Runs many items, each of which can fail alone, with few savepoints.
//!
//! Invariant: at most [`GROUPS_MAX`] savepoints are kept, however many items there are. Items share a savepoint; when
//! one of them fails, what the others of its group did is undone with it and done again without it.

use super::Scope;
use crate::backend::Backend;
use crate::callback::ItemFnOnce;
use crate::error::Error;
use crate::tx::handle::Tx;
use crate::tx::tx_state::TxState;

/// The number of savepoints that one call keeps: a quarter of what a transaction may keep.
const GROUPS_MAX: usize = 16;

/// The results of the items, in their order.
type Results<T, E> = Vec<Result<T, Error<E>>>;

impl<DB: Backend> Tx<'_, DB> {
    /// Runs `body` for each item in turn. The writes of an item are kept if its call returns `Ok`. They are undone, and
    /// no others, if the call returns `Err` or if a statement in it failed. The answers come in the order of the items.
    ///
    /// Use this where a loop over [`scope`](Tx::scope) could pass its limit of 64. It keeps at most 16 savepoints
    /// whatever the number of items, and so takes fewer round trips: the items are cut into that many groups, each
    /// with one savepoint. If an item fails, its group is rolled back, and the items before it run again without it.
    /// It suits lists in which few items fail. If most items may fail, `INSERT .. ON CONFLICT DO NOTHING` is better.
    ///
    /// A call may run several times for one item; what counts is its last one. The closure and the item are cloned
    /// for each call. A captured `&mut` does not compile, for the same reason as in [`run`](crate::Txn::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future poisons the transaction, as in [`scope`](Tx::scope).
    ///
    /// # Errors
    ///
    /// For an item: [`Error::App`] with the closure's error, [`Error::RolledBack`] if it returned `Ok` and could
    /// not be kept. For the whole call: what ends the transaction, such as a conflict with another one, or
    /// [`Misuse::TooManyScopes`](crate::Misuse::TooManyScopes); return it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(pool: &sqlx::SqlitePool, emails: &[String]) -> Result<(), probity_txn::Error<sqlx::Error>> {
    /// use probity_txn::Error;
    ///
    /// probity_txn::on(pool, "import")
    ///     .run(async |tx| {
    ///         let imported = tx
    ///             .scope_each(emails, async |tx, email| {
    ///                 sqlx::query("INSERT INTO emails VALUES (?)").bind(email).execute(&mut *tx).await
    ///             })
    ///             .await
    ///             .map_err(|error| sqlx::Error::InvalidArgument(error.to_string()))?;
    ///         for (email, outcome) in emails.iter().zip(imported) {
    ///             match outcome {
    ///                 Ok(_) => {}
    ///                 Err(Error::App(sqlx::Error::Database(error))) if error.is_unique_violation() => {
    ///                     sqlx::query("INSERT INTO duplicates VALUES (?)").bind(email).execute(&mut *tx).await?;
    ///                 }
    ///                 Err(Error::App(error)) => return Err(error),
    ///                 Err(other) => return Err(sqlx::Error::InvalidArgument(other.to_string())),
    ///             }
    ///         }
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn scope_each<'s, I, F, T, E>(
        &'s mut self,
        items: I,
        body: F,
    ) -> impl Future<Output = Result<Vec<Result<T, Error<E>>>, Error<E>>> + Send + 's
    where
        I: IntoIterator<Item: Clone + Send + 's, IntoIter: Send + 's> + Send + 's,
        for<'t, 'x> F: AsyncFnOnce(&'t mut Tx<'x, DB>, I::Item) -> Result<T, E>
            + ItemFnOnce<&'t mut Tx<'x, DB>, I::Item, Result<T, E>, Fut: Send>
            + Clone
            + Send
            + 's,
        T: Send + 's,
        E: Send + 's,
    {
        let items: Vec<I::Item> = items.into_iter().collect();
        let state = &mut *self.state;
        let mut body = body;
        async move {
            let mut results = Vec::with_capacity(items.len());
            let size = items.len().div_ceil(GROUPS_MAX).max(1);
            let mut items = items.into_iter();
            loop {
                let group: Vec<I::Item> = items.by_ref().take(size).collect();
                if group.is_empty() {
                    return Ok(results);
                }
                results.extend(run_group(state, group, &mut body).await?);
            }
        }
    }
}

/// Runs the items of one group in one savepoint, until there is a pass in which none of those that are left fails.
async fn run_group<DB, I, F, T, E>(
    state: &mut TxState<DB>,
    group: Vec<I>,
    // Not shared, so that the closure need not be `Sync`.
    body: &mut F,
) -> Result<Results<T, E>, Error<E>>
where
    DB: Backend,
    I: Clone + Send,
    for<'t, 'x> F: AsyncFnOnce(&'t mut Tx<'x, DB>, I) -> Result<T, E>
        + ItemFnOnce<&'t mut Tx<'x, DB>, I, Result<T, E>, Fut: Send>
        + Clone
        + Send,
    T: Send,
    E: Send,
{
    // The items that have not failed yet, and the result of each item.
    let mut left: Vec<(usize, I)> = group.into_iter().enumerate().collect();
    let mut results: Vec<Option<Result<T, Error<E>>>> = left.iter().map(|_| None).collect();
    'pass: loop {
        let scope = Scope::enter(state).await.map_err(super::lift)?;
        for place in 0..left.len() {
            let (number, item) = left[place].clone();
            let result = body.clone()(&mut Tx::new(&mut *scope.state), item).await;
            let (reason, error) = match (scope.state.guard.take_poison(), result) {
                (None, Ok(value)) => {
                    results[number] = Some(Ok(value));
                    continue;
                }
                (reason, result) => (reason, result.err()),
            };
            let error = scope.undo(reason, error).await;
            if state.guard.poison_reason().is_some() {
                return Err(error);
            }
            results[number] = Some(Err(error));
            left.remove(place);
            continue 'pass;
        }
        scope.keep().await?;
        // Each item has failed, or came through the last pass.
        return Ok(results.into_iter().flatten().collect());
    }
}
