//! PostgreSQL: one store whose concurrent calls share statements, around one that sends each call by itself.

mod changes;
mod claims;
mod classify;
mod dialect;
mod group_commit;
mod migrate;
mod rows;
mod sql;
mod store;

pub use store::PostgresStore;
