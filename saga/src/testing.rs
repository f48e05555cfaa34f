//! Tests for stores and for your sagas.
//!
//! * [`contract`]: what every [`SagaStore`](crate::SagaStore) must do, one clause per function;
//!   [`store_contract!`](crate::store_contract) makes a test of each.
//! * [`broken`]: stores that are wrong in one way each; a contract that does not catch them proves
//!   nothing.
//! * [`explore()`]: your saga, cut at every point, in a plain unit test.

pub mod broken;
pub mod contract;
mod explore;

pub use explore::{Broken, Explored, Report, explore};
