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
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod guide;
#[cfg(feature = "tower")]
mod http;
#[cfg(feature = "tower")]
pub mod layer {
    //! The types around [`IdempotencyLayer`](crate::IdempotencyLayer): its settings, its bodies, and the answers of a
    //! handler that are more than a response.

    pub use crate::http::{FingerprintRules, IdempotencyService, ProblemDetails, ReplayBody, Tasks, Verdict};
}
pub mod lease;
mod metrics;
mod policy;
mod recover;
#[cfg(feature = "tower")]
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use self::core::claim::Effects;
pub use self::core::fingerprint::Fingerprint;
pub use self::core::identity::HashKey;
pub use self::core::key::{IdempotencyKey, KeyError, Scope};
pub use self::core::recording::{Recording, Tombstone, TombstoneReason};
pub use error::{Effect, ErrorKind, StoreError};
pub use execute::{ExecuteError, Execution, execute};
#[cfg(feature = "axum")]
pub use http::OrRelease;
#[cfg(feature = "tower")]
pub use http::{IdempotencyLayer, Refusal, Scoped, Unscoped};
pub use lease::handle::Lease;
pub use metrics::describe_metrics;
pub use policy::Policy;
pub use recover::{Recover, RecoverContext, Recovered};
pub use store::manager::IdempotencyManager;
pub use store::memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use store::postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::sqlite::SqliteStore;
