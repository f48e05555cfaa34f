//! The shell as a service and its callers see it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod boundary;
#[cfg(not(feature = "postgres"))]
mod database;
mod openapi;
mod problem_types;
