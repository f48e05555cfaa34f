//! withdrawal-service over real HTTP; `platform.rs` decides on which database.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod accounts;
mod approvals;
mod balances;
mod execution;
mod operators;
mod outages;
mod platform;
#[cfg(feature = "redis")]
mod redis;
mod withdrawals;
