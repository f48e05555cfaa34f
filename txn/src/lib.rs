#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Run a closure in a database transaction so that `Ok` means committed, exactly once."
)]
#![forbid(unsafe_code)]

mod admission;
mod affected;
mod attempt;
mod backend;
mod callback;
mod cancel;
mod classify;
mod conclude;
mod deadline;
mod error;
mod executor;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub mod guide;
mod hooks;
mod idle_connections;
mod known;
mod lock;
mod lossless;
mod nesting;
mod once;
mod open;
mod own_answer;
mod policy;
mod pool_error;
mod purge;
mod run;
mod schedule;
mod scope;
mod session;
mod settings;
mod shield;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "postgres")]
mod sqlstate;
mod statement;
mod telemetry;
mod token;
mod token_home;
mod token_table;
mod tx;
mod txn;
mod watch;

pub use affected::{Affected, Expected, UnexpectedRows};
pub use backend::Backend;
pub use callback::{ItemFnOnce, TxFnOnce};
pub use classify::{Class, Failure, driver_error};
pub use error::{Effect, Error, ErrorKind, Misuse, Reason};
pub use lock::{Advisory, LockError, LockKey, Lockable, Locked, TryLock};
pub use once::Once;
pub use policy::Policy;
pub use pool_error::PoolError;
pub use purge::purge_tokens;
pub use settings::Isolation;
pub use token_table::{TokenTable, TokenTableError, create_token_table, token_table};
pub use tx::Tx;
pub use txn::{Txn, on};
