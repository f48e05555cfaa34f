//! The guide: chapters to read in order, each compiled and run with the tests.
//!
//! 1. [`start`]: the first transaction, and the errors of a run
//! 2. [`retries`]: conflicts, retries, limits, cost, metrics
//! 3. [`locks`]: row locks, witnesses, lock order, hot rows
//! 4. [`lost_replies`]: lost replies to COMMIT, tokens
//! 5. [`sqlite`]: one writer, and the differences from PostgreSQL
//! 6. [`poolers`]: PgBouncer and its relatives
//! 7. [`pitfalls`]: accidents of payment code, and how to avoid each

#[doc = include_str!("../docs/01-start.md")]
pub mod start {}

#[doc = include_str!("../docs/02-retries.md")]
pub mod retries {}

#[doc = include_str!("../docs/03-locks.md")]
pub mod locks {}

#[doc = include_str!("../docs/04-lost-replies.md")]
pub mod lost_replies {}

#[doc = include_str!("../docs/05-sqlite.md")]
pub mod sqlite {}

#[doc = include_str!("../docs/06-poolers.md")]
pub mod poolers {}

#[doc = include_str!("../docs/07-pitfalls.md")]
pub mod pitfalls {}
