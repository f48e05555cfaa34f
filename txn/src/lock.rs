//! Row locks that leave a witness: a function that must not run without the lock asks for the witness in its
//! signature.

mod advisory;
mod error;
pub(crate) mod key;
mod provable;
mod rows;
mod sql;
mod witness;

pub use advisory::Advisory;
pub use error::LockError;
pub use key::LockKey;
pub use witness::{Lockable, Locked, TryLock};
