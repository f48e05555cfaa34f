//! payment-gateway: a payment is charged once and undone cleanly, also when clients retry and processes crash.
//!
//! One transaction inserts the payment and starts its saga; the saga creates the order, calls the channel and pays the
//! order, and its end is the payment's;
//! the idempotency layer answers repetitions with the first answer, and after a crash looks the answer up.
//!
//! Reading order: `payments.rs` and `answers.rs` (the life of a request), `steps.rs` (the saga), `peer.rs` (what an answer
//! of another service proves), `refunds.rs` (giving money back), `cancel.rs`, `webhooks.rs`, `notifications.rs`, `sweeps.rs`
//! (what no request waits for), `recover.rs` (after a crash), `app.rs` (wiring).

#![forbid(unsafe_code)]

mod answers;
mod app;
mod auth;
mod cancel;
mod domain;
mod notifications;
mod payments;
mod peer;
mod recover;
mod refunds;
mod sagas;
mod settings;
mod steps;
mod store;
mod sweeps;
mod webhooks;

pub use app::{start, start_at};
pub use domain::{Item, NewPayment, NotifyStatus, Payment, PaymentBody, Status};
pub use notifications::step::{DeliverNotification, Delivered, Notification};
pub use refunds::domain::{NewRefund, Refund, RefundBody, RefundStatus};
pub use refunds::steps::{
    BookRefund, Booked, GivenBack, OrderTold, RefundAtChannel, RefundOrder, RefundRequest,
};
pub use settings::{Own, Tempo};
pub use steps::{CallPaymentChannel, Charge, CreateOrder, Order, PaidOrder, PayOrder, PaymentRequest};
pub use store::SCHEMA;

/// The name of the service, as in `cargo run -p payment-gateway`.
pub const NAME: &str = "payment-gateway";
/// The port it listens on unless `PORT` says otherwise.
pub const PORT: u16 = 40003;
