//! The keys of rows that can be locked.

use sqlx::error::BoxDynError;
use sqlx::{Database, Decode, Encode, Type};

/// A key that `DB` can store and read. Every type that sqlx can, is one; on PostgreSQL it also needs an array of it
/// (`PgHasArrayType`), because many keys travel as one parameter. `#[derive(sqlx::Type)]` gives both.
///
/// Never implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a row to lock on this database",
    note = "it needs sqlx's Type, Encode and Decode, and on PostgreSQL PgHasArrayType; #[derive(sqlx::Type)] gives \
            all of them, and a key has to be Clone and Ord"
)]
pub trait LockKey<DB: Database>:
    for<'q> Encode<'q, DB> + for<'r> Decode<'r, DB> + Type<DB> + Clone + Ord + Send + Sync + 'static
{
    /// The constant is true where many keys are one parameter, so that one statement text serves every count of them.
    #[doc(hidden)]
    const ONE_PARAMETER: bool;

    /// Adds the keys: all as one parameter, or each as its own.
    #[doc(hidden)]
    fn add_all(keys: Vec<Self>, arguments: &mut DB::Arguments) -> Result<(), BoxDynError>;
}
