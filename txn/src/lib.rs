#![cfg_attr(feature = "sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "sqlite"),
    doc = "Run a closure in a database transaction so that `Ok` means committed, exactly once."
)]
#![forbid(unsafe_code)]

mod aborted;
mod backend;
mod callback;
mod classify;
mod error;
mod executor;
mod nesting;
mod policy;
mod run;
mod session;
mod settings;
mod shield;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod statement;
mod tx;
mod txn;
mod watch;

pub use backend::Backend;
pub use callback::TxFnOnce;
pub use classify::{Class, Failure, driver_error};
pub use error::{Effect, Error, ErrorKind, Misuse, Reason};
pub use policy::Policy;
pub use settings::Isolation;
pub use tx::Tx;
pub use txn::{Txn, on};
