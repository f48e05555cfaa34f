//! The keys of rows to lock on SQLite, which has no row locks: its only writer holds all rows since BEGIN.

use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, Decode, Encode, Sqlite, Type};

use crate::lock::key::LockKey;

impl<K> LockKey<Sqlite> for K
where
    K: for<'q> Encode<'q, Sqlite> + for<'r> Decode<'r, Sqlite> + Type<Sqlite>,
    K: Clone + Ord + Send + Sync + 'static,
{
    const ONE_PARAMETER: bool = false;

    fn add_all(keys: Vec<Self>, arguments: &mut SqliteArguments) -> Result<(), BoxDynError> {
        keys.into_iter().try_for_each(|key| arguments.add(key))
    }
}
