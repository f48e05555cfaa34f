//! The delays of the slow and of the silent test methods.

use std::time::Duration;

use clap::Args;
use service_shell::{ServiceToken, token};

/// The settings of the channel alone.
#[derive(Args, Clone, Debug)]
pub struct Own {
    /// The delays of the test methods.
    #[command(flatten)]
    pub delays: Delays,
    /// The address to which webhooks are sent [default: none are sent].
    #[arg(long, env = "CHANNEL_WEBHOOK_URL")]
    pub channel_webhook_url: Option<String>,
    /// The secret that signs webhooks [default on loopback only: a known one].
    #[arg(long, env = "CHANNEL_WEBHOOK_SECRET", value_parser = token)]
    pub channel_webhook_secret: Option<ServiceToken>,
}

/// The delays of the test methods.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// The milliseconds after which a `card_slow` demand takes effect.
    #[arg(long = "channel-slow-ms", env = "CHANNEL_SLOW_MS", default_value = "1500", value_parser = delay)]
    pub slow: Duration,
    /// The milliseconds for which `card_hangs` and `card_never_arrives` keep silent: longer than the callers' own time
    /// limits.
    #[arg(long = "channel-hang-ms", env = "CHANNEL_HANG_MS", default_value = "120000", value_parser = delay)]
    pub hang: Duration,
}

/// No delay is a delay.
fn delay(text: &str) -> Result<Duration, String> {
    let number = text.parse().map(Duration::from_millis);
    number.map_err(|_| format!("must be a number of milliseconds, not `{text}`"))
}
