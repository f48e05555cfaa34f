//! channel-adapter: stands in for Stripe, PayPal and a bank, with a ledger that tells the truth about charges.
//!
//! It behaves as a careful provider does. The same idempotency key never moves money twice; another key for
//! the same payment *does*, so a gateway that invents a new key per attempt is caught by counting. What a
//! demand does is chosen by its test method (`card_ok`, `card_hangs`, …, see the README).
//!
//! Start reading at [`domain`](Behaviour), then `store.rs`, where the locks are.

#![forbid(unsafe_code)]

mod app;
mod book;
mod domain;
mod events;
mod refund;
mod settings;
mod store;
mod wire;

pub use app::start;
pub use book::{Book, PAYMENTS, TRANSFERS};
pub use domain::{Answer, Behaviour, Cancelled, Demand, Entry, Known, Status};
pub use refund::{Refund, RefundAnswer, RefundDemand, find as find_refund, give_back};
pub use settings::{Delays, Own};
pub use store::{SCHEMA, cancel, demand, look_up};

/// The name of the service, as in `cargo run -p channel-adapter`.
pub const NAME: &str = "channel-adapter";
/// The port it listens on unless `PORT` says otherwise.
pub const PORT: u16 = 40005;
