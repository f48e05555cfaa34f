//! Tests of the stores: the contract, the stores that break it, and the databases with their faults.

#[cfg(all(feature = "postgres", feature = "sqlite", feature = "testing"))]
#[macro_use]
#[path = "../undoable/mod.rs"]
mod undoable;

mod broken;
mod contract;
mod edited_rows;
mod frozen_server;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[path = "../handmade/mod.rs"]
mod handmade;
mod large_batches;
mod plans;
mod postgres;
mod postgres_faults;
mod postgres_refusals;
mod restricted;
mod sqlite;
mod sqlite_faults;
