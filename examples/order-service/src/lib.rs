//! order-service: orders of merchants, with their items and a log of every change.
//!
//! Internal: other services call it with the platform's service token and `X-Merchant-Id`. It is the example
//! of *local* effects: a write and the record of its answer commit in one transaction (`complete_in`), so a
//! repeated request cannot change anything twice, even if a process crashed in between.
//!
//! Reading order: `domain.rs` (rules), `store.rs` (SQL and the barrier), `app.rs` (routes).

#![forbid(unsafe_code)]

mod app;
mod domain;
mod settings;
mod store;

pub use app::{start, start_at};
pub use domain::{Change, Item, NewOrder, Order, OrderBody, PayStatus, Status, Verdict};
pub use settings::Own;
pub use store::{Changed, Created, Payment, SCHEMA};

/// The name of the service, as in `cargo run -p order-service`.
pub const NAME: &str = "order-service";
/// The port it listens on unless `PORT` says otherwise.
pub const PORT: u16 = 40004;
