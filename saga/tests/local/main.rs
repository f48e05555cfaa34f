//! Local steps: effect and record are both stored, or neither, after any fault.
#![cfg(all(feature = "testing", feature = "sqlite", feature = "postgres"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod contract;
mod explored;
mod killed;
mod lost;
mod on_postgres;
mod scenarios;
mod script;
mod stores;
