//! Keeps which table of tokens the sessions of a pool found: one table per pool and name, for as long as the pool
//! lives.
//!
//! Invariant: no run of a pool writes its token into another table than the runs before it, and no purge deletes from
//! another one. A search path that was changed, or a temporary table of the same name, would make a second
//! execution of a token possible.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use sqlx::Pool;
use sqlx::pool::CloseEvent;

use crate::backend::Backend;

/// One table that was found by its name alone.
struct Found {
    pool: PoolId,
    /// Fires when the pool is closed or dropped.
    closed: CloseEvent,
    /// The name it was looked for by.
    name: String,
    /// Its number at the last look; another one after it was created anew.
    number: i64,
    qualified: Arc<str>,
}

static FOUND: Mutex<Vec<Found>> = Mutex::new(Vec::new());

/// Finds the whole name of the table that the session knows as `name` and under this number; none if it is not that
/// of the sessions before it.
pub(crate) async fn whole_name<DB: Backend>(
    connection: &mut DB::Connection,
    pool: &Pool<DB>,
    name: &str,
    number: i64,
) -> Result<Option<Arc<str>>, sqlx::Error> {
    if let Some(table) = recall(pool, name, number) {
        return Ok(Some(table));
    }
    let table = DB::qualified_name(connection, number).await?;
    Ok(table.and_then(|table| remember(pool, name, number, table)))
}

/// Says whether a session of this pool has found a table by this name.
pub(crate) fn knows<DB: Backend>(pool: &Pool<DB>, name: &str) -> bool {
    find(&mut FOUND.lock().unwrap_or_else(PoisonError::into_inner), pool, name).is_some()
}

/// Gives the whole name of the table `number`, if this pool has seen it under that number.
fn recall<DB: Backend>(pool: &Pool<DB>, name: &str, number: i64) -> Option<Arc<str>> {
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let known = find(&mut found, pool, name)?;
    (known.number == number).then(|| Arc::clone(&known.qualified))
}

/// Takes the table in, unless the pool knows another one by this name.
fn remember<DB: Backend>(pool: &Pool<DB>, name: &str, number: i64, qualified: String) -> Option<Arc<str>> {
    // A panic of another thread leaves the list consistent.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = find(&mut found, pool, name) {
        if *known.qualified != *qualified {
            return None;
        }
        known.number = number;
        return Some(Arc::clone(&known.qualified));
    }
    // The entry of a closed pool may have been removed, so the first table that it finds proves nothing.
    if pool.is_closed() {
        return None;
    }
    found.retain_mut(|known| !is_over(&mut known.closed));
    let qualified: Arc<str> = qualified.into();
    found.push(Found {
        pool: PoolId::of(pool),
        closed: pool.close_event(),
        name: name.to_owned(),
        number,
        qualified: Arc::clone(&qualified),
    });
    Some(qualified)
}

/// Finds the entry of the pool for this name. An entry of a dropped pool, whose place in memory this pool has taken,
/// does not count. The entry of a closed pool still counts for the runs that it had begun.
fn find<'f, DB: Backend>(found: &'f mut [Found], pool: &Pool<DB>, name: &str) -> Option<&'f mut Found> {
    let id = PoolId::of(pool);
    let mut ours = found.iter_mut().filter(|known| known.pool == id && known.name == name);
    ours.find_map(|known| (pool.is_closed() || !is_over(&mut known.closed)).then_some(known))
}

fn is_over(closed: &mut CloseEvent) -> bool {
    closed.now_or_never().is_some()
}

/// Names a pool as long as it lives, by the place of its settings: all clones of the pool share them, and nothing
/// replaces them. Its connect options are no such name, because a rotation of the password replaces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PoolId(usize);

impl PoolId {
    fn of<DB: Backend>(pool: &Pool<DB>) -> Self {
        Self(ptr::from_ref(pool.options()).addr())
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use sqlx::{PgPool, Postgres};

    use super::*;

    fn pool() -> PgPool {
        PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new())
    }

    #[tokio::test]
    async fn a_pool_remembers_its_token_table_while_it_lives() {
        // proves: T-6
        let (first, second) = (pool(), pool());
        let name = "a pool knows";
        let ours = remember(&first, name, 1, "ours".to_owned()).unwrap();
        assert_eq!(recall(&first, name, 1).as_ref(), Some(&ours));
        assert!(!knows(&second, name), "another pool");
        first.set_connect_options(PgConnectOptions::new().password("rotated"));
        assert!(knows(&first.clone(), name), "a rotated password changes nothing");
        assert_eq!(remember(&first, name, 2, "theirs".to_owned()), None);
        assert_eq!(remember(&first, name, 2, "ours".to_owned()), Some(ours), "created anew");

        // While runs of it still go on.
        first.close().await;
        assert!(knows(&first, name));
        assert_eq!(remember(&first, name, 3, "theirs".to_owned()), None);
        // Other pools remove the entries of closed pools.
        remember(&second, name, 1, "theirs".to_owned()).unwrap();
        assert_eq!(remember(&first, name, 3, "theirs".to_owned()), None);

        // The pool is dropped, and another pool takes its place in memory.
        let left = pool();
        remember(&left, name, 1, "ours".to_owned()).unwrap();
        let place = PoolId::of(&left);
        drop(left);
        let next = pool();
        for known in FOUND.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if known.pool == place {
                known.pool = PoolId::of(&next);
            }
        }
        assert!(!knows::<Postgres>(&next, name));
    }
}
