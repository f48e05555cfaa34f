//! The variables that the gateway reads beyond those that every service reads.

use std::time::Duration;

use clap::Args;
use saga_operations::TwoOperators;
use service_shell::{ServiceToken, in_flight, milliseconds, token};

/// The settings of the gateway alone.
#[derive(Args, Clone, Debug)]
pub struct Own {
    /// The durations and limits.
    #[command(flatten)]
    pub tempo: Tempo,
    /// The amount from which two operators decide.
    #[command(flatten)]
    pub operations: TwoOperators,
    /// The secret by which the channel signs its webhooks [default on loopback only: a known one].
    #[arg(long, env = "CHANNEL_WEBHOOK_SECRET", value_parser = token)]
    pub channel_webhook_secret: Option<ServiceToken>,
    /// The secret from which those of the notifications are derived [default on loopback only: a known one].
    #[arg(long, env = "NOTIFICATION_SECRET", value_parser = token)]
    pub notification_secret: Option<ServiceToken>,
}

/// The gateway's durations and limits. The defaults are the platform's; tests and the demo shorten them.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// The milliseconds that a request waits for the outcome before it answers 202.
    #[arg(long = "request-wait-ms", env = "REQUEST_WAIT_MS", default_value = "10000", value_parser = milliseconds)]
    pub request_wait: Duration,
    /// The milliseconds of one attempt at the order service or the channel, unless one of them has its own.
    #[arg(long = "step-timeout-ms", env = "STEP_TIMEOUT_MS", value_parser = milliseconds)]
    step_timeout: Option<Duration>,
    /// The milliseconds of one attempt at the order service [default: STEP_TIMEOUT_MS, or 30000].
    #[arg(long = "order-timeout-ms", env = "ORDER_TIMEOUT_MS", value_parser = milliseconds)]
    order_timeout: Option<Duration>,
    /// The milliseconds of one attempt at the channel [default: STEP_TIMEOUT_MS, or 60000].
    #[arg(long = "channel-timeout-ms", env = "CHANNEL_TIMEOUT_MS", value_parser = milliseconds)]
    channel_timeout: Option<Duration>,
    /// The milliseconds before the first retry of a step, doubled for each of the three.
    #[arg(long = "step-retry-ms", env = "STEP_RETRY_MS", default_value = "2000", value_parser = milliseconds)]
    pub step_retry: Duration,
    /// The number of pauses for a neighbour that is away before its step is given up. They begin with STEP_RETRY_MS and
    /// double; 18 are about an hour.
    #[arg(long, env = "STEP_PATIENCE", default_value = "18")]
    pub step_patience: u32,
    /// The milliseconds of the first pause between two tries of a neighbour that was away three times in a row.
    #[arg(long = "provider-pause-ms", env = "PROVIDER_PAUSE_MS", default_value = "1000", value_parser = milliseconds)]
    pub provider_pause: Duration,
    /// The milliseconds between two looks for sagas whose wait is over.
    #[arg(long = "saga-poll-ms", env = "SAGA_POLL_MS", default_value = "1000", value_parser = milliseconds)]
    pub saga_poll: Duration,
    /// The milliseconds after which an open payment that is not charged is turned back.
    #[arg(long = "payment-expiry-ms", env = "PAYMENT_EXPIRY_MS", default_value = "1800000", value_parser = milliseconds)]
    pub payment_expiry: Duration,
    /// The milliseconds of the first pause before a merchant is told again, doubled up to six hours.
    #[arg(long = "notify-retry-ms", env = "NOTIFY_RETRY_MS", default_value = "10000", value_parser = milliseconds)]
    pub notify_retry: Duration,
    /// The number of times that a merchant is told again; 14 take about a day.
    #[arg(long, env = "NOTIFY_RETRIES", default_value = "14")]
    pub notify_retries: u32,
    /// The milliseconds that a merchant's server may take to answer.
    #[arg(long = "notify-timeout-ms", env = "NOTIFY_TIMEOUT_MS", default_value = "10000", value_parser = milliseconds)]
    pub notify_timeout: Duration,
    /// The number of payments that this process drives at the same time, half of them at one neighbour.
    #[arg(long, env = "SAGAS_IN_FLIGHT", default_value = "1024", value_parser = in_flight)]
    pub sagas_in_flight: usize,
    /// The milliseconds without a sign of life after which another process takes over its sagas.
    #[arg(long = "saga-lease-ms", env = "SAGA_LEASE_MS", default_value = "30000", value_parser = milliseconds)]
    pub saga_lease: Duration,
    /// The milliseconds without a sign of life after which a retry may ask what became of its request.
    #[arg(long = "idempotency-lease-ms", env = "IDEMPOTENCY_LEASE_MS", default_value = "30000", value_parser = milliseconds)]
    pub idempotency_lease: Duration,
}

impl Tempo {
    /// The time of one attempt at the order service.
    #[must_use]
    pub fn order_timeout(&self) -> Duration {
        self.order_timeout.or(self.step_timeout).unwrap_or(Duration::from_secs(30))
    }

    /// The time of one attempt at the channel.
    #[must_use]
    pub fn channel_timeout(&self) -> Duration {
        self.channel_timeout.or(self.step_timeout).unwrap_or(Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use service_shell::{Settings, StartError};

    use super::*;

    fn tempo<const N: usize>(vars: [(&str, &str); N]) -> Result<Tempo, StartError> {
        let url = if service_shell::POSTGRES { "postgres://localhost/x" } else { "sqlite:x.sqlite3" };
        let vars = vars.into_iter().chain([("DATABASE_URL", url)]);
        Settings::from_vars("payment-gateway", 40003, vars)?.own()
    }

    #[test]
    fn one_variable_shortens_both_steps_and_its_own_name_wins() {
        let both = tempo([("STEP_TIMEOUT_MS", "500")]).unwrap();
        assert_eq!((both.order_timeout().as_millis(), both.channel_timeout().as_millis()), (500, 500));
        let one = tempo([("STEP_TIMEOUT_MS", "500"), ("CHANNEL_TIMEOUT_MS", "700")]).unwrap();
        assert_eq!((one.order_timeout().as_millis(), one.channel_timeout().as_millis()), (500, 700));
        let none = tempo([]).unwrap();
        assert_eq!((none.order_timeout().as_secs(), none.channel_timeout().as_secs()), (30, 60));
    }

    #[test]
    fn a_duration_that_cannot_be_is_named() {
        for text in ["0", "-1", "soon"] {
            let refused = tempo([("SAGA_LEASE_MS", text)]).expect_err("refused").to_string();
            assert!(refused.starts_with("SAGA_LEASE_MS must be a number"), "{refused}");
        }
    }
}
