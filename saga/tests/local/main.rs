//! Local steps: of effect and record both are there, or neither, whatever goes wrong in between.
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
