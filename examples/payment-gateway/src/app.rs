//! Wires the gateway: database, idempotency, sagas, peers, routes.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use http::request::Parts;
use probity_idempotency::{Effects, IdempotencyLayer, Refusal, Scope};
use saga_operations::{Asked, Decided, Operations};
use service_shell::{
    Clock, Credential, Drain, Guarded, Health, HttpTimeouts, Operator, Operators, Problem, Purging, Records,
    Role, Settings, StartError, api, database, http_client, shell,
};
use tower_layer::Identity;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answers::{Gateway, checked, close_ended};
use crate::auth::{Gatekeeper, Merchant, signed};
use crate::cancel;
use crate::domain::{NewPayment, Payment, PaymentBody};
use crate::notifications;
use crate::payments;
use crate::recover::FindRow;
use crate::refunds;
use crate::refunds::domain::{NewRefund, Refund, RefundBody};
use crate::sagas;
use crate::settings::{Own, Tempo};
use crate::steps::PAYMENT;
use crate::store;
use crate::sweeps;
use crate::webhooks;

/// Opens everything and returns the routes, and what to do after serving. Sagas that an earlier process left
/// behind go on from here.
///
/// # Cancel safety
/// Safe: what was opened is closed again; sagas that were resumed are resumed by the next start.
///
/// # Errors
/// [`StartError`] when a setting or the database cannot be used.
pub async fn start(settings: Settings) -> Result<(Router, Drain), StartError> {
    start_at(settings, Clock::default()).await
}

/// Does the same as [`start`], with a clock that a test can move.
///
/// # Cancel safety
/// The same as for [`start`].
///
/// # Errors
/// The errors of [`start`].
pub async fn start_at(settings: Settings, clock: Clock) -> Result<(Router, Drain), StartError> {
    webhooks::describe_metrics();
    let Own { tempo, operations, channel_webhook_secret, notification_secret } = settings.own()?;
    let notification_secret = settings.secret("NOTIFICATION_SECRET", notification_secret)?;
    let pool = database::open(&settings).await?;
    store::SCHEMA.apply(&pool).await?;
    saga_operations::SCHEMA.apply(&pool).await?;
    let records = Records::open(&settings, &pool).await?;
    let (sagas, saga_store) = sagas::start(&settings, &tempo, &notification_secret, &pool).await?;
    let gateway = Gateway {
        pool: pool.clone(),
        sagas: sagas.clone(),
        request_wait: tempo.request_wait,
        two_operators_from: operations.two_operators_from,
        webhook_secret: settings.secret("CHANNEL_WEBHOOK_SECRET", channel_webhook_secret)?,
        notification_secret,
        tells_inside: settings.address.ip().is_loopback(),
    };
    let idempotent = Idempotent::new(&records, &tempo, &gateway);
    let client = http_client(HttpTimeouts::default())?;
    let gatekeeper = Gatekeeper {
        client: client.clone(),
        merchant_service: settings.peers.merchant.clone(),
        token: settings.service_token.clone(),
    };
    let (paying, refunding) = (idempotent.payments.tasks(), idempotent.refunds.tasks());
    let sweeping = tokio::spawn(sweeps::run(gateway.clone(), tempo.payment_expiry, clock));
    let routes = routes(idempotent, gatekeeper, &settings.operators).with_state(gateway);
    let health = records
        .watched_by(Health::named(settings.name))
        .database(&pool)
        .peer("merchant-service", &client, &settings.peers.merchant)
        .peer("order-service", &client, &settings.peers.order)
        .peer("channel-adapter", &client, &settings.peers.channel);
    let purging = Purging::of(&settings).records(records.manager());
    let (keep, purged) = (purging.saga_keep(), pool.clone());
    let purging = purging.then("sagas", move |batch| {
        let (store, pool) = (saga_store.clone(), purged.clone());
        async move {
            // First, because a row learns its end from its saga.
            close_ended(&pool).await.map_err(|error| error.to_string())?;
            notifications::store::close_told(&pool).await.map_err(|error| error.to_string())?;
            store.purge(keep, batch).await.map_err(|error| error.to_string())
        }
    });
    let drain = purging
        .start(Drain::nothing())
        .then("requests", move || async move {
            paying.drain().await;
            refunding.drain().await;
        })
        .then("sagas", move || async move {
            if let Err(error) = sagas.drain().await {
                tracing::warn!(%error, "sagas wait for their lease to run out");
            }
        })
        .then("sweeping", move || async move { sweeping.abort() })
        .close(&pool);
    Ok((shell(settings.name, health, routes)?, drain))
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
fn routes(idempotent: Idempotent, gatekeeper: Gatekeeper, operators: &Operators) -> OpenApiRouter<Gateway> {
    // From the inside out: the handler, idempotency, the checks, the signature.
    let paying = OpenApiRouter::default()
        .routes(routes!(payments::create))
        .keyed(idempotent.payments)
        .route_layer(from_fn::<_, (Request,)>(checked::<PaymentBody, NewPayment>));
    let refunding = OpenApiRouter::default()
        .routes(routes!(refunds::create))
        .keyed(idempotent.refunds)
        .route_layer(from_fn::<_, (Request,)>(checked::<RefundBody, NewRefund>));
    let merchants = paying
        .merge(refunding)
        .routes(routes!(payments::list))
        .routes(routes!(payments::get))
        .routes(routes!(cancel::cancel))
        .routes(routes!(refunds::list))
        .routes(routes!(refunds::get))
        .routes(routes!(notifications::secret))
        .accepts(&[Credential::Signature], from_fn_with_state(gatekeeper, signed));
    let deciding = OpenApiRouter::default().routes(routes!(compensate)).operators(operators, Role::Act);
    // The handler checks it, over the body as it came.
    let channels = OpenApiRouter::default()
        .routes(routes!(webhooks::receive))
        .accepts(&[Credential::Webhook], Identity::new());
    api("Payments and refunds of merchants. Money is an integer of minor units.")
        .merge(merchants)
        .merge(deciding)
        .merge(channels)
        .merge(saga_operations::routes(operators))
}

/// Keys belong to the merchant whose signature was verified, and to the mode of the API key that signed.
fn merchant_scope(parts: &Parts) -> Result<Scope, Refusal> {
    let merchant = parts.extensions.get::<Merchant>().ok_or_else(Refusal::unauthenticated)?;
    Ok(Scope::new(format!("payment-gateway:merchant:{}:{}", merchant.id, merchant.mode))?)
}

/// Turns the saga of a payment back.
#[utoipa::path(post, path = "/api/v1/saga/payments/{payment_no}/compensate", responses(
    (status = 200, description = "It turns back.", body = Decided),
    (status = 202, description = "Another operator has to confirm it.", body = Asked),
    (status = 404, description = "There is no such payment."),
    (status = 409, description = "It cannot turn back."),
))]
async fn compensate(
    State(operations): State<Operations>,
    operator: Operator,
    Path(payment_no): Path<String>,
) -> Result<Response, Problem> {
    operations.compensate(&operator, PAYMENT, &payment_no, "ordered over HTTP").await
}
