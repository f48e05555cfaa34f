//! The parts of a payment's time, as the services count it.

use std::time::Duration;

/// One part: the sums of a histogram whose lines contain all of these words, in the metrics of one service.
pub(super) struct Part {
    pub(super) name: &'static str,
    service: &'static str,
    metric: &'static str,
    labels: &'static [&'static str],
}

const PAYMENTS: &[&str] = &["method=\"POST\"", "route=\"/api/v1/payments\""];

pub(super) const PARTS: &[Part] = &[
    part("the gateway, from request to answer", "payment-gateway", "http_request_duration_seconds", PAYMENTS),
    part(
        "signature, in the merchant service",
        "merchant-service",
        "http_request_duration_seconds",
        &["route=\"/internal/v1/authenticate\""],
    ),
    part("claim of the idempotency key", "payment-gateway", "probity_idempotency_claim_seconds", &[]),
    part("the transaction of the payment", "payment-gateway", "probity_txn_run_seconds", &[]),
    part("writes of the saga, one by one", "payment-gateway", "probity_saga_flush_seconds", &[]),
    part(
        "the order service, as the saga waits for it",
        "payment-gateway",
        "probity_saga_step_seconds",
        &["type=\"payment\"", "step=\"CreateOrder\"", "operation=\"execute\""],
    ),
    part(
        "the channel, as the saga waits for it",
        "payment-gateway",
        "probity_saga_step_seconds",
        &["type=\"payment\"", "step=\"CallPaymentChannel\"", "operation=\"execute\""],
    ),
];

const fn part(
    name: &'static str,
    service: &'static str,
    metric: &'static str,
    labels: &'static [&'static str],
) -> Part {
    Part { name, service, metric, labels }
}

/// The text of `/metrics` of each service.
pub(super) type Metrics = Vec<(&'static str, String)>;

impl Part {
    /// The time between two looks, divided by the payments between them.
    pub(super) fn per_payment(&self, before: &Metrics, after: &Metrics) -> Duration {
        let gateway =
            Part { service: "payment-gateway", ..part("", "", "http_request_duration_seconds", PAYMENTS) };
        let payments = gateway.total(after, "_count") - gateway.total(before, "_count");
        let seconds = self.total(after, "_sum") - self.total(before, "_sum");
        Duration::from_secs_f64((seconds / payments.max(1.0)).max(0.0))
    }

    fn total(&self, metrics: &Metrics, what: &str) -> f64 {
        let texts = metrics.iter().filter(|(service, _)| *service == self.service);
        let lines = texts.flat_map(|(_, text)| text.lines());
        let ours = lines.filter(|line| {
            line.strip_prefix(self.metric).is_some_and(|rest| rest.starts_with(what))
                && self.labels.iter().all(|label| line.contains(label))
        });
        ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
