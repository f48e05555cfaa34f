//! The SQL stores beyond the contract: transactions of the caller, shared statements, restricted roles and poolers.

mod postgres;
mod restricted;
mod sharing;
mod sqlite;
