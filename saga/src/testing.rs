//! Tests for stores and for your sagas.
//!
//! * [`contract`]: what every [`SagaStore`](crate::store::SagaStore) must do, one clause per function;
//!   [`store_contract!`](crate::store_contract) makes a test of each, and
//!   [`local_store_contract!`](crate::local_store_contract) for stores with transactions for local steps.
//! * [`broken`]: stores that are wrong in one way each; a contract that does not catch them proves
//!   nothing.
//! * [`FaultyStore`]: any store, with faults and hooks at the calls that a test names.
//! * [`explore()`]: your saga, cut at every point, in a plain unit test, with its limits; [`explore_with()`] looks at
//!   your fakes as well, and [`explore_on()`] does it on a database.

pub mod broken;
pub mod contract;
mod explore;
mod faulty;

pub use explore::{
    Broken, Calls, Explored, Refused, Report, Waiting, explore, explore_on, explore_rows_on, explore_with,
};
pub use faulty::{Answered, Call, FaultyStore, Observed, Side};

use crate::engine::start::Started;
use crate::error::SagaError;
use crate::orchestrator::Orchestrator;
use crate::step::Payload;

/// Starts a saga as `start_in` does whose transaction has committed: it is stored, it belongs to this
/// worker, and no worker drives it until `wait`. On every store, so that this path needs no database.
///
/// # Cancel safety
/// The saga may or may not have been started.
///
/// # Errors
/// The errors of `start_in`.
pub async fn start_unattended<I: Payload>(
    orchestrator: &Orchestrator,
    saga: &str,
    business_id: &str,
    input: &I,
) -> Result<Started, SagaError> {
    orchestrator.start_unattended(saga, business_id, input).await
}
