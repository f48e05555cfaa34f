//! For authors of stores: the contract as a test suite, a store that fails on demand, and stores that are wrong in one
//! way each, to see the suite catch them.
//!
//! A store of your own proves itself in ten lines:
//!
//! ```
//! use std::sync::Arc;
//! use probity_idempotency::{MemoryStore, testing::Subject};
//!
//! async fn subject() -> Subject {
//!     Subject::new(Arc::new(MemoryStore::new())) // your store, on an empty database
//! }
//!
//! probity_idempotency::store_contract!(subject);
//! # fn main() {}
//! ```
//!
//! The macro expands to one test per clause, named after it. The clauses never sleep: they use leases and retentions of no
//! length, so only the store's own clock decides, and a slow machine cannot fail them.
//!
//! [`HistoryStore`] checks any use of a store, a race or a whole service under load, after the fact: were all the
//! answers possible, and did every key take effect at most once?

mod broken;
mod contract;
mod faulty;
mod history;
mod violation;

pub use broken::{BrokenStore, Fault};
pub use contract::{Clause, Subject, clause, clauses};
pub use faulty::{Call, FaultyStore, Side};
pub use history::HistoryStore;
pub use violation::Violation;
