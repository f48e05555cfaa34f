#![cfg_attr(feature = "tower", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "tower"),
    doc = "Lets a retried request, message or job take effect once and get the first answer again."
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod core;
mod deadline;
mod error;
mod execute;
pub mod guide;
#[cfg(feature = "tower")]
mod http;
mod lease;
mod metrics;
mod policy;
mod recover;
#[cfg(feature = "tower")]
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use self::core::claim::{
    Answer, Claim, Effects, Grant, Indeterminate, Renewed, Resolution, State, Terms, Written,
};
pub use self::core::fence::Fence;
pub use self::core::fingerprint::Fingerprint;
pub use self::core::identity::{HashKey, RecordId};
pub use self::core::key::{IdempotencyKey, KEY_LENGTH_MAX, KeyError, SCOPE_LENGTH_MAX, Scope};
pub use self::core::recording::{Recording, Tombstone, TombstoneReason};
pub use error::{Effect, ErrorKind, StoreError};
pub use execute::{ExecuteError, Execution, execute};
#[cfg(feature = "axum")]
pub use http::OrRelease;
#[cfg(feature = "tower")]
pub use http::{
    FingerprintRules, IdempotencyLayer, IdempotencyService, ProblemDetails, Refusal, ReplayBody, Scoped,
    Tasks, Unscoped, Verdict,
};
pub use lease::acquire::claim;
pub use lease::guard::{LeaseGuard, Settlement};
pub use lease::handle::Lease;
pub use policy::Policy;
pub use recover::{Recover, RecoverContext, Recovered};
pub use store::manager::{IdempotencyManager, Snapshot, SqlTables};
pub use store::memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use store::postgres::PostgresStore;
#[cfg(feature = "redis-cluster")]
pub use store::redis::ClusterConnection;
#[cfg(feature = "redis-sentinel")]
pub use store::redis::SentinelConnection;
#[cfg(feature = "redis")]
pub use store::redis::{Durability, RedisStore};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::sql::{Dialect, SqlStore, SqlStoreBuilder};
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStore;
pub use token::{Holder, OwnerToken};
