//! The promises on SQLite: what holds on every database, and what only SQLite can show.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod bank;
#[path = "../both/mod.rs"]
mod both;
mod conflict;
mod killed;
mod leftovers;
mod lost;
mod statement;

use bank::Bank;
use sqlx::Sqlite as Database;
