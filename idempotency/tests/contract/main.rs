//! Every store keeps the contract, and stores that are wrong in one way each do not.

mod clocks;
mod history;
mod in_transactions;
mod memory;
mod postgres;
mod redis;
mod sqlite;
