//! A run: attempts of a closure in a transaction, until one is committed, refused or out of time.

pub(crate) mod admission;
mod ambiguity;
mod attempt;
mod begin;
mod check;
mod commit;
mod connect;
pub(crate) mod deadline;
mod idle_connections;
mod job;
mod nesting;
mod retry;
pub(crate) mod token;

pub(crate) use retry::run;
