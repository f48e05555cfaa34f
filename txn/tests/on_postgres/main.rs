//! The promises on PostgreSQL: what holds on every database, and what only PostgreSQL can show.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bank;
#[path = "../both/mod.rs"]
mod both;
mod conflict;
mod lock;
mod lost;
mod pitfalls;
mod proxy;

use bank::Bank;
use sqlx::Postgres as Database;
