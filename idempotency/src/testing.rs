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
//! The macro expands to one test per rule, named after it. The rules never sleep: they use leases and retentions of no
//! length, so only the store's own clock decides, and a slow machine cannot fail them.

mod broken;
mod contract;
mod faulty;

pub use broken::{BrokenStore, Flaw};
pub use contract::{Rule, Subject, Violation, rule, rules};
pub use faulty::{Call, FaultyStore, Side};
