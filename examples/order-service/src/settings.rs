//! The settings that the order service reads beyond those that every service reads.

use std::time::Duration;

use clap::Args;
use service_shell::milliseconds;

/// The settings of the order service alone.
#[derive(Args, Clone, Copy, Debug)]
pub struct Own {
    /// The milliseconds after which an order without a payment expires.
    #[arg(long = "order-expiry-ms", env = "ORDER_EXPIRY_MS", default_value = "1800000", value_parser = milliseconds)]
    pub order_expiry: Duration,
}
