//! The variables that the gateway reads beyond those that every service reads.

use std::time::Duration;

use service_shell::{Settings, StartError};

/// The gateway's durations and limits. The defaults are the platform's; tests and the demo shorten them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// `REQUEST_WAIT_MS`: how long `POST /payments` waits for the outcome before it answers 202; 10 s.
    pub request_wait: Duration,
    /// `ORDER_TIMEOUT_MS` (or `STEP_TIMEOUT_MS` for both steps): one attempt at the order service; 30 s.
    pub order_timeout: Duration,
    /// `CHANNEL_TIMEOUT_MS` (or `STEP_TIMEOUT_MS` for both steps): one attempt at the channel; 60 s.
    pub channel_timeout: Duration,
    /// `STEP_RETRY_MS`: the wait before the first retry of a step, doubled for each of the three; 2 s.
    pub step_retry: Duration,
    /// `STEP_PATIENCE`: how many pauses are made for a neighbour that is away before its step is given up; they begin
    /// with `step_retry` and double; 18, which is about an hour.
    pub step_patience: u32,
    /// `PROVIDER_PAUSE_MS`: the first pause between two tries of a neighbour that was away three times in a row; 1 s.
    pub provider_pause: Duration,
    /// `SAGA_POLL_MS`: how often the gateway looks for sagas whose wait is over; 1 s.
    pub saga_poll: Duration,
    /// `SAGAS_IN_FLIGHT`: how many payments this process drives at the same time, half of them at one neighbour; 1024.
    pub sagas_in_flight: usize,
    /// `SAGA_LEASE_MS`: after so long without a sign of life another process takes over its sagas; 30 s.
    pub saga_lease: Duration,
    /// `IDEMPOTENCY_LEASE_MS`: after so long without a sign of life a retry may ask what became of its
    /// request; 30 s.
    pub idempotency_lease: Duration,
}

impl Tempo {
    /// Reads the variables.
    ///
    /// # Errors
    /// [`StartError::Setting`] when one of them is not a number, or is too small to work.
    pub fn from_settings(settings: &Settings) -> Result<Tempo, StartError> {
        let read = |name, default| settings.milliseconds(name, default);
        let order = read("STEP_TIMEOUT_MS", 30_000)?;
        let channel = read("STEP_TIMEOUT_MS", 60_000)?;
        Ok(Tempo {
            request_wait: read("REQUEST_WAIT_MS", 10_000)?,
            order_timeout: read("ORDER_TIMEOUT_MS", default_of(order))?,
            channel_timeout: read("CHANNEL_TIMEOUT_MS", default_of(channel))?,
            step_retry: read("STEP_RETRY_MS", 2_000)?,
            step_patience: u32::try_from(settings.number("STEP_PATIENCE", 0, 18)?).unwrap_or(u32::MAX),
            provider_pause: read("PROVIDER_PAUSE_MS", 1_000)?,
            saga_poll: read("SAGA_POLL_MS", 1_000)?,
            sagas_in_flight: usize::try_from(settings.number("SAGAS_IN_FLIGHT", 1, 1024)?)
                .unwrap_or(usize::MAX),
            saga_lease: read("SAGA_LEASE_MS", 30_000)?,
            idempotency_lease: read("IDEMPOTENCY_LEASE_MS", 30_000)?,
        })
    }
}

fn default_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tempo<const N: usize>(vars: [(&str, &str); N]) -> Result<Tempo, StartError> {
        let url = if service_shell::POSTGRES { "postgres://localhost/x" } else { "sqlite:x.sqlite3" };
        let vars = vars.into_iter().chain([("DATABASE_URL", url)]);
        Tempo::from_settings(&Settings::from_vars("payment-gateway", 40003, vars)?)
    }

    #[test]
    fn one_variable_shortens_both_steps_and_its_own_name_wins() {
        let both = tempo([("STEP_TIMEOUT_MS", "500")]).unwrap();
        assert_eq!((both.order_timeout.as_millis(), both.channel_timeout.as_millis()), (500, 500));
        let one = tempo([("STEP_TIMEOUT_MS", "500"), ("CHANNEL_TIMEOUT_MS", "700")]).unwrap();
        assert_eq!((one.order_timeout.as_millis(), one.channel_timeout.as_millis()), (500, 700));
        let none = tempo([]).unwrap();
        assert_eq!((none.order_timeout.as_secs(), none.channel_timeout.as_secs()), (30, 60));
    }

    #[test]
    fn a_duration_that_cannot_be_is_named() {
        for text in ["0", "-1", "soon"] {
            let refused = tempo([("SAGA_LEASE_MS", text)]).expect_err("refused").to_string();
            assert!(refused.starts_with("SAGA_LEASE_MS must be a number"), "{refused}");
        }
    }
}
