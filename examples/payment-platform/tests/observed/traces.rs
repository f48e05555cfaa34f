//! Traces through HTTP, sagas and recovery.

use crate::collector::{Collector, Span};
use crate::services::{ALL, Services};

const FIRST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SECOND: &str = "5cf92f3577b34da6a3ce929d0e0e4737";

fn has(spans: &[Span], trace: &str, service: &str, name: &str) -> bool {
    spans.iter().any(|span| span.trace == trace && span.service == service && span.name == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_one_trace_and_the_saga_of_a_killed_gateway_is_linked_to_it() {
    testkit::time_limit();
    let (collector, endpoint) = Collector::listen().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("SAGA_LEASE_MS", "3000".to_owned()),
        ("CHANNEL_HANG_MS", "600000".to_owned()),
    ];
    let mut services = Services::start(&ALL.map(|(name, _)| name), &settings);
    let merchant = services.merchant().await;

    let paid = merchant.pay("order-1", "card_ok", FIRST).send().await.unwrap();
    assert_eq!(paid.status(), 201, "{}", paid.text().await.unwrap());
    let through = [
        ("merchant-service", "POST /internal/v1/authenticate"),
        ("payment-gateway", "POST /api/v1/payments"),
        ("payment-gateway", "saga"),
        ("order-service", "POST /api/v1/orders"),
        ("channel-adapter", "POST /api/v1/channel/payments"),
    ];
    let one_trace = |spans: &[Span]| through.iter().all(|(service, name)| has(spans, FIRST, service, name));
    collector.until("a payment's trace", one_trace).await;

    // The order is written and the channel hangs: the gateway dies with the saga open.
    let hanging = tokio::spawn(merchant.pay("order-2", "card_hangs", SECOND).send());
    let ordered = |spans: &[Span]| has(spans, SECOND, "order-service", "POST /api/v1/orders");
    collector.until("the order of the second payment", ordered).await;
    services.kill9("payment-gateway");
    assert!(hanging.await.unwrap().is_err(), "the gateway died before it answered");
    services.spawn("payment-gateway");
    let links = |span: &&Span| span.name == "saga" && span.links.iter().any(|trace| trace == SECOND);
    let seen = collector.until("a linked saga", |spans| spans.iter().any(|span| links(&span))).await;
    let recovered = seen.iter().find(links).unwrap();
    assert_eq!(recovered.service, "payment-gateway");
    assert_ne!(recovered.trace, SECOND, "a recovery has a trace of its own");
    assert!(
        seen.iter().any(|span| span.trace == recovered.trace && span.service == "channel-adapter"),
        "{seen:#?}"
    );
}
