//! Wires the gateway: database, idempotency, sagas, peers, routes.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use http::request::Parts;
use probity_idempotency::{Effects, IdempotencyLayer, Refusal, Scope};
use probity_saga::{Orchestrator, Saga};
use saga_operations::Operations;
use service_shell::{
    Drain, Health, HttpTimeouts, Operator, Operators, Pool, Problem, Records, Role, Routes, Settings, Shell,
    StartError, database, http_client, step_policy,
};

use crate::answers::{Gateway, checked, close_ended};
use crate::auth::{Gatekeeper, Merchant, signed};
use crate::cancel;
use crate::domain::{NewPayment, Payment, PaymentBody};
use crate::payments;
use crate::peer::Peer;
use crate::recover::FindRow;
use crate::refunds;
use crate::refunds::domain::{NewRefund, Refund, RefundBody};
use crate::refunds::steps::{BookRefund, REFUND, RefundAtChannel, RefundOrder};
use crate::settings::{Own, Tempo};
use crate::steps::{CallPaymentChannel, CreateOrder, PAYMENT, PayOrder};
use crate::store;
use crate::webhooks;

#[cfg(not(feature = "postgres"))]
type Sagas = probity_saga::SqliteStore;
#[cfg(feature = "postgres")]
type Sagas = probity_saga::PostgresStore;

/// The interval between two looks for payments whose saga ended while no request waited for it.
const CLOSE_EVERY: Duration = Duration::from_secs(1);

/// Opens everything and returns the routes, and what to do after serving. Sagas that an earlier process left
/// behind go on from here.
///
/// # Cancel safety
/// Safe: what was opened is closed again; sagas that were resumed are resumed by the next start.
///
/// # Errors
/// [`StartError`] when a setting or the database cannot be used.
pub async fn start(settings: Settings) -> Result<(Router, Drain), StartError> {
    let Own { tempo, operations, channel_webhook_secret } = settings.own()?;
    let pool = database::open(&settings).await?;
    store::SCHEMA.apply(&pool).await?;
    saga_operations::SCHEMA.apply(&pool).await?;
    let records = Records::open(&settings, &pool).await?;
    let sagas = orchestrator(&settings, &tempo, &pool).await?;
    let gateway = Gateway {
        pool: pool.clone(),
        sagas: sagas.clone(),
        request_wait: tempo.request_wait,
        two_operators_from: operations.two_operators_from,
        webhook_secret: settings.secret("CHANNEL_WEBHOOK_SECRET", channel_webhook_secret)?,
    };
    let idempotent = Idempotent::new(&records, &tempo, &gateway);
    let client = http_client(HttpTimeouts::default())?;
    let gatekeeper = Gatekeeper {
        client: client.clone(),
        merchant_service: settings.peers.merchant.clone(),
        token: settings.service_token.clone(),
    };
    let (paying, refunding) = (idempotent.payments.tasks(), idempotent.refunds.tasks());
    let closing = tokio::spawn(keep_closing(gateway.clone()));
    let sagas_of_operators = saga_operations::routes(&settings.operators).split_for_parts().0;
    let router = routes(idempotent, gatekeeper, &settings.operators).into_router();
    let router = router.merge(sagas_of_operators).with_state(gateway);
    let health = records
        .watched_by(Health::named(settings.name))
        .database(&pool)
        .peer("merchant-service", &client, &settings.peers.merchant)
        .peer("order-service", &client, &settings.peers.order)
        .peer("channel-adapter", &client, &settings.peers.channel);
    let drain = Drain::nothing()
        .then("requests", move || async move {
            paying.drain().await;
            refunding.drain().await;
        })
        .then("sagas", move || async move {
            if let Err(error) = sagas.drain().await {
                tracing::warn!(%error, "sagas wait for their lease to run out");
            }
        })
        .then("closing", move || async move { closing.abort() })
        .close(&pool);
    Ok((Shell::new(settings.name, health, crate::OPENAPI)?.wrap(router), drain))
}

async fn orchestrator(settings: &Settings, tempo: &Tempo, pool: &Pool) -> Result<Orchestrator, StartError> {
    let failed = |error: probity_saga::BuildError| StartError::other("the payment saga", error);
    let client = |total: Duration| http_client(HttpTimeouts { total, ..HttpTimeouts::default() });
    let (token, peers) = (&settings.service_token, &settings.peers);
    let order_service =
        service_shell::Peer::new(&client(tempo.order_timeout())?, "order service", &peers.order, token);
    let channel_adapter =
        service_shell::Peer::new(&client(tempo.channel_timeout())?, "channel", &peers.channel, token);
    let (orders, channel) = (Peer::new(order_service), Peer::new(channel_adapter));
    let policy = step_policy(tempo.step_retry, tempo.step_patience);
    // Its locks are held for as long, and on SQLite it is the only writer.
    let booking = policy.clone().timeout(Duration::from_secs(5));
    let ordering = policy.clone().timeout(tempo.order_timeout()).provider(orders.name());
    let charging = policy.timeout(tempo.channel_timeout()).provider(channel.name());
    let paying = Saga::named(PAYMENT)
        .step(CreateOrder { pool: pool.clone(), orders: orders.clone(), policy: ordering.clone() })
        .step(CallPaymentChannel { pool: pool.clone(), channel: channel.clone(), policy: charging.clone() })
        .step(PayOrder { pool: pool.clone(), orders: orders.clone(), policy: ordering.clone() })
        .build()
        .map_err(failed)?;
    let refunding = Saga::named(REFUND)
        .pivot(RefundAtChannel { pool: pool.clone(), channel, policy: charging })
        .local_step(BookRefund { policy: booking })
        .step(RefundOrder { orders, policy: ordering })
        .build()
        .map_err(failed)?;
    let store = Sagas::new(pool.clone()).await.map_err(|error| StartError::other("the saga store", error))?;
    let sagas = Orchestrator::new(store)
        .lease(tempo.saga_lease)
        .poll(tempo.saga_poll)
        .in_flight(tempo.sagas_in_flight)
        .provider_pause(tempo.provider_pause);
    sagas.register(paying).register(refunding).start().await.map_err(failed)
}

async fn keep_closing(gateway: Gateway) {
    loop {
        if let Err(error) = gateway.take_up_parked().await {
            tracing::warn!(%error, "parked webhooks cannot be looked for");
        }
        match close_ended(&gateway.pool).await {
            Ok(0) => {}
            Ok(closed) => tracing::info!(closed, "payments and refunds have the end of their sagas now"),
            Err(error) => tracing::warn!(%error, "rows of ended sagas cannot be looked for"),
        }
        tokio::time::sleep(CLOSE_EVERY).await;
    }
}

/// The layer around what moves money. Each route has a hook of its own that looks for what a lost attempt made; keys are
/// the merchant's, so one key never stands for a payment and a refund.
#[derive(Clone)]
pub(crate) struct Idempotent {
    payments: IdempotencyLayer,
    refunds: IdempotencyLayer,
}

impl Idempotent {
    fn new(records: &Records, tempo: &Tempo, gateway: &Gateway) -> Idempotent {
        let layer = || {
            IdempotencyLayer::new(records.manager())
                .scope(merchant_scope)
                .effects(Effects::Opaque)
                .lease(tempo.idempotency_lease)
        };
        Idempotent {
            payments: layer().recover(FindRow::<Payment>::of(gateway)),
            refunds: layer().recover(FindRow::<Refund>::of(gateway)),
        }
    }
}

/// All routes, each behind its own kind of caller.
pub(crate) fn routes(
    idempotent: Idempotent,
    gatekeeper: Gatekeeper,
    operators: &Operators,
) -> Routes<Gateway> {
    // From the inside out: the handler, idempotency, the checks, the signature.
    let pay =
        post(payments::create).layer(idempotent.payments).layer(from_fn(checked::<PaymentBody, NewPayment>));
    let refund =
        post(refunds::create).layer(idempotent.refunds).layer(from_fn(checked::<RefundBody, NewRefund>));
    let merchants = Routes::new()
        .mount("POST", "/api/v1/payments", pay)
        .get("/api/v1/payments", payments::list)
        .get("/api/v1/payments/{payment_no}", payments::get)
        .post("/api/v1/payments/{payment_no}/cancel", cancel::cancel)
        .mount("POST", "/api/v1/refunds", refund)
        .get("/api/v1/refunds", refunds::list)
        .get("/api/v1/refunds/{refund_no}", refunds::get)
        .map(|router| router.route_layer(from_fn_with_state(gatekeeper, signed)));
    let deciding = Routes::new()
        .post("/api/v1/saga/payments/{payment_no}/compensate", compensate)
        .operators(operators, Role::Act);
    // Each of these carries a signature of its own.
    let channels = Routes::new().post("/api/v1/webhooks/{channel}", webhooks::receive);
    merchants.merge(deciding).merge(channels)
}

/// Keys belong to the merchant whose signature was verified, and to the mode of the API key that signed.
fn merchant_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let merchant = parts.extensions.get::<Merchant>().ok_or_else(Refusal::unauthenticated)?;
    Ok(Scope::new(format!("payment-gateway:merchant:{}:{}", merchant.id, merchant.mode))?)
}

/// `POST /api/v1/saga/payments/{payment_no}/compensate`: an operator turns the saga of a payment back.
async fn compensate(
    State(operations): State<Operations>,
    operator: Operator,
    Path(payment_no): Path<String>,
) -> Result<Response, Problem> {
    operations.compensate(&operator, PAYMENT, &payment_no, "ordered over HTTP").await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use probity_idempotency::MemoryStore;

    use super::*;

    #[test]
    fn the_document_lists_exactly_the_routes() {
        let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).scope(merchant_scope);
        let idempotent = Idempotent { payments: layer.clone(), refunds: layer };
        let token = service_shell::ServiceToken::new("0123456789abcdef");
        let client = http_client(HttpTimeouts::default()).unwrap();
        let gatekeeper = Gatekeeper { client, merchant_service: String::new(), token };
        let routes = routes(idempotent, gatekeeper, &Operators::for_this_machine());
        assert_eq!(*routes.listed(), service_shell::operations(crate::OPENAPI));
    }
}
