//! The promises on PostgreSQL: what holds on every database, and what only PostgreSQL can show.
#![cfg(feature = "postgres")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod abandoned;
mod bank;
#[path = "../both/mod.rs"]
mod both;
mod conflict;
mod killed;
mod leftovers;
mod lock;
mod lost;
mod pitfalls;
mod pooler;
mod restarted;
mod round_trips;
#[cfg(feature = "backoff")]
mod schedule;
mod standby;
mod statement;
mod tokens;
mod unreachable;
mod worn;

use bank::Bank;
use sqlx::Postgres as Database;
