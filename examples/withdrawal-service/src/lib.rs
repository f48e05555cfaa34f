//! withdrawal-service: merchants' money on its way to their banks.
//!
//! A withdrawal waits for as many people as its amount needs, each of whom approves once. What two requests
//! could break together is decided by one UPDATE. Every POST carries an `Idempotency-Key`, and each row remembers
//! the request that made it, so that no attempt of it makes a second one.
//!
//! Reading order: `domain.rs` (rules), `store.rs` (SQL), `steps.rs` (the saga that moves the money), `app.rs`
//! (routes).

#![forbid(unsafe_code)]

mod app;
mod bank;
mod domain;
mod payouts;
mod start;
mod steps;
mod store;

pub use domain::{
    Balance, BankAccount, Entry, EntryKind, EntryStatus, NewBankAccount, NewEntry, NewWithdrawal, Speed,
    Status, Withdrawal, approvals_required,
};
pub use payouts::Own;
pub use start::start;
