//! Stores, and what an author of one needs: the contract, its questions and its answers.
//!
//! A service chooses one of the stores at the crate's root. It needs this module if it claims inside of its own
//! transactions, or if it brings a store of its own. [The guide](crate::guide::your_own_store) says how a new store proves
//! itself.

pub(crate) mod manager;
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod rows;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod sql;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
pub(crate) mod timed;

pub use manager::{IdempotencyManager, Snapshot, SqlTables};
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "redis-cluster")]
pub use redis::ClusterConnection;
#[cfg(feature = "redis-sentinel")]
pub use redis::SentinelConnection;
#[cfg(feature = "redis")]
pub use redis::{Durability, RedisStore};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use sql::{Dialect, SqlStore, SqlStoreBuilder};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

pub use crate::core::claim::{
    Answer, Claim, Grant, Indeterminate, Renewed, Resolution, State, Terms, Written,
};
pub use crate::core::fence::Fence;
pub use crate::core::identity::RecordId;
pub use crate::token::{Holder, OwnerToken};
