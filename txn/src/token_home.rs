//! Where the sessions of a pool found the table of tokens: one table per pool and name, for as long as the pool lives.
//!
//! Invariant: no run of a pool writes its token into another table than the runs before it. A search path that was
//! changed, or a temporary table of the same name, would make a second execution of a token possible.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sqlx::Pool;

use crate::backend::Backend;

/// One table that was found by its name alone.
struct Found {
    /// The options of the pool, which tell pools apart.
    pool: Weak<dyn Any + Send + Sync>,
    /// The name it was looked for by.
    name: String,
    /// Its number at the last look; another one after it was created anew.
    number: i64,
    qualified: Arc<str>,
}

static FOUND: Mutex<Vec<Found>> = Mutex::new(Vec::new());

/// The table that the session of a claim met.
pub(crate) enum Met {
    /// The one of before, by its whole name.
    Known(Arc<str>),
    /// Not seen under this number yet. Look its name up, and [`remember`] it.
    New,
}

/// Whether the table `number` is the one that this pool knows as `name`.
pub(crate) fn met<DB: Backend>(pool: &Pool<DB>, name: &str, number: i64) -> Met {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let options = pool.connect_options();
    match find(&found, &options, name) {
        Some(at) if found[at].number == number => Met::Known(Arc::clone(&found[at].qualified)),
        _ => Met::New,
    }
}

/// Whether a session of this pool has found a table by this name.
pub(crate) fn knows<DB: Backend>(pool: &Pool<DB>, name: &str) -> bool {
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    find(&found, &pool.connect_options(), name).is_some()
}

/// Takes the table in, unless the pool knows another one by this name.
pub(crate) fn remember<DB: Backend>(
    pool: &Pool<DB>,
    name: &str,
    number: i64,
    qualified: String,
) -> Option<Arc<str>> {
    // The list is whole even if a thread panicked beside it.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let options = pool.connect_options();
    if let Some(at) = find(&found, &options, name) {
        let known = &mut found[at];
        if *known.qualified != *qualified {
            return None;
        }
        known.number = number;
        return Some(Arc::clone(&known.qualified));
    }
    found.retain(|known| known.pool.strong_count() > 0);
    let options: Arc<dyn Any + Send + Sync> = options;
    let qualified: Arc<str> = qualified.into();
    found.push(Found {
        pool: Arc::downgrade(&options),
        name: name.to_owned(),
        number,
        qualified: Arc::clone(&qualified),
    });
    Some(qualified)
}

/// A pool hands out the same options as long as it lives, and a `Weak` keeps their address from being used again.
fn find<O: Send + Sync + 'static>(found: &[Found], options: &Arc<O>, name: &str) -> Option<usize> {
    let address = Arc::as_ptr(options).cast::<()>();
    found.iter().position(|known| known.pool.as_ptr().cast::<()>() == address && known.name == name)
}
