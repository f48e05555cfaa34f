#![cfg_attr(feature = "tower", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "tower"),
    doc = "Lets a retried request, message or job take effect once and get the first answer again."
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod claim;
mod deadline;
mod error;
mod execute;
mod fingerprint;
pub mod guide;
#[cfg(feature = "tower")]
mod http;
mod identity;
mod key;
mod lease;
mod machine;
mod observe;
mod policy;
mod recording;
mod recover;
#[cfg(feature = "tower")]
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use claim::{Answer, Claim, Effects, Grant, Indeterminate, Renewed, Resolution, State, Terms, Written};
pub use error::{Effect, ErrorKind, StoreError};
pub use execute::{ExecuteError, Execution, execute};
pub use fingerprint::Fingerprint;
#[cfg(feature = "axum")]
pub use http::OrRelease;
#[cfg(feature = "tower")]
pub use http::{
    FingerprintRules, IdempotencyLayer, IdempotencyService, ProblemDetails, Refusal, ReplayBody, Scoped,
    Tasks, Unscoped, Verdict,
};
pub use identity::{HashKey, RecordId};
pub use key::{IdempotencyKey, KEY_LENGTH_MAX, KeyError, SCOPE_LENGTH_MAX, Scope};
pub use lease::Lease;
pub use lease::guard::{LeaseGuard, Settlement, claim};
pub use policy::Policy;
pub use recording::{Recording, Tombstone, TombstoneReason};
pub use recover::{Recover, RecoverContext, Recovered};
pub use store::memory::MemoryStore;
#[cfg(feature = "redis-cluster")]
pub use store::redis::ClusterConnection;
#[cfg(feature = "redis-sentinel")]
pub use store::redis::SentinelConnection;
#[cfg(feature = "redis")]
pub use store::redis::{Durability, RedisStore};
#[cfg(feature = "postgres")]
pub use store::sql::PostgresStore;
#[cfg(feature = "sqlite")]
pub use store::sql::SqliteStore;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::sql::{Dialect, SqlStore, SqlStoreBuilder};
pub use store::{IdempotencyManager, Snapshot, SqlTables};
pub use token::{Fence, Holder, OwnerToken};
