#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Run a closure in a database transaction so that `Ok` means committed, exactly once."
)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod affected;
mod backend;
mod builder;
mod callback;
mod classify;
mod error;
mod failure;
#[cfg(all(any(test, fuzzing), feature = "postgres", feature = "sqlite"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub mod guide;
mod isolation;
mod json_round_trip;
pub mod lock;
mod metrics;
mod policy;
mod pool_error;
mod run;
mod schedule;
mod session;
mod settings;
mod shield;
#[cfg(feature = "postgres")]
mod sqlstate;
mod token_table;
mod tx;

pub use self::metrics::describe_metrics;
pub use affected::{Affected, Expected, UnexpectedRows};
pub use backend::Backend;
#[cfg(feature = "sqlite")]
pub use backend::sqlite::options as sqlite;
pub use builder::once::Once;
pub use builder::{Txn, on};
pub use callback::{ItemFnOnce, TxFnOnce};
pub use classify::Class;
pub use error::{Effect, Error, ErrorKind, Misuse, RollbackReason};
pub use failure::{Failure, driver_error};
pub use isolation::Isolation;
pub use policy::Policy;
pub use pool_error::PoolError;
pub use token_table::purge::purge_tokens;
pub use token_table::{TokenTable, TokenTableError, create_token_table};
pub use tx::handle::Tx;
