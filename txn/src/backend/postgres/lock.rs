//! The locks of PostgreSQL.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgHasArrayType};
use sqlx::{Arguments as _, Decode, Encode, Postgres, Type};

use crate::backend::lock_syntax::LockSyntax;
use crate::lock::key::LockKey;

/// The syntax of PostgreSQL. NO KEY UPDATE is as strong as an UPDATE of ordinary columns and lets others insert
/// children that refer to the row; FOR UPDATE would deadlock with them.
pub(super) const SYNTAX: LockSyntax = LockSyntax {
    until_free: " FOR NO KEY UPDATE",
    never: " FOR NO KEY UPDATE NOWAIT",
    skip: " FOR NO KEY UPDATE SKIP LOCKED",
    skip_in_join: " FOR NO KEY UPDATE OF this SKIP LOCKED",
    in_array: "= ANY($1)",
    array_as_table: "unnest($1) AS wanted (column1)",
    advisory: "SELECT 1 FROM pg_advisory_xact_lock($1)",
};

impl<K> LockKey<Postgres> for K
where
    K: for<'q> Encode<'q, Postgres> + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    K: PgHasArrayType + Clone + Ord + Send + Sync + 'static,
{
    const ONE_PARAMETER: bool = true;

    fn add_all(keys: Vec<Self>, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        arguments.add(keys)
    }
}
