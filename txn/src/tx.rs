//! The handle that a closure receives, and everything that it reaches from there.

pub(crate) mod executor;
pub(crate) mod handle;
pub(crate) mod hooks;
pub(crate) mod savepoint;
pub(crate) mod statement;
pub(crate) mod statement_guard;
pub(crate) mod tx_state;
