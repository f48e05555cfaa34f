//! The SQL of withdrawals. Every rule that two requests could break together is in one statement, or behind
//! the lock of one row. A row remembers the request that made it (the id of its idempotency record): an attempt
//! that was lost after its commit is taken over by one that finds that row and makes no second one.

mod accounts;
mod balances;
mod holds;
mod withdrawals;

use service_shell::{Database, Schema};

pub(crate) use accounts::{accounts, add_account, set_default};
pub(crate) use balances::{balances, book, cancel, confirm};
pub(crate) use holds::{Connection, Frozen, close_ended, deduct, freeze, is_frozen, note_reason, release};
pub(crate) use withdrawals::{
    Change, approve, change, create, execute, find, find_of, in_doubt, list, waiting, without_saga,
};

/// The tables of withdrawals.
pub(crate) const SCHEMA: Schema = Schema {
    service: "withdrawal-service",
    sqlite: &[include_str!("../schema/sqlite.sql"), include_str!("../schema/sqlite-2-persons.sql")],
    postgres: &[include_str!("../schema/postgres.sql"), include_str!("../schema/postgres-2-persons.sql")],
};

/// A transaction on the database of this build.
pub(crate) type Tx<'t> = probity_txn::Tx<'t, Database>;
