//! The three sagas of the gateway and the worker that runs them.

use std::time::Duration;

use probity_saga::{Backoff, BuildError, Orchestrator, Saga, StepPolicy};
use service_shell::{
    HttpTimeouts, Pool, ServiceToken, Settings, StartError, http_client, step_policy, traced_sagas,
};

use crate::notifications::step::{DeliverNotification, MERCHANTS, NOTIFICATION};
use crate::peer::Peer;
use crate::refunds::steps::{BookRefund, REFUND, RefundAtChannel, RefundOrder};
use crate::settings::Tempo;
use crate::steps::{CallPaymentChannel, CreateOrder, PAYMENT, PayOrder};

#[cfg(not(feature = "postgres"))]
pub(crate) type Sagas = probity_saga::SqliteStore;
#[cfg(feature = "postgres")]
pub(crate) type Sagas = probity_saga::PostgresStore;

/// The types of the sagas that this service runs.
pub(crate) const TYPES: &[&str] = &[PAYMENT, REFUND, NOTIFICATION];

/// The longest pause between two tries to tell a merchant.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// Starts the worker. Sagas that an earlier process left behind go on from here.
pub(crate) async fn start(
    settings: &Settings,
    tempo: &Tempo,
    notification_secret: &ServiceToken,
    pool: &Pool,
) -> Result<(Orchestrator, Sagas), StartError> {
    let failed = |error: BuildError| StartError::other("the sagas", error);
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
    let telling = StepPolicy::default()
        .timeout(tempo.notify_timeout)
        .retries(Backoff::doubling(tempo.notify_retries, tempo.notify_retry, LONGEST_PAUSE).jittered())
        .provider(MERCHANTS);
    let secret = notification_secret.clone();
    let notifying = Saga::named(NOTIFICATION)
        .step(DeliverNotification { client: client(tempo.notify_timeout)?, secret, policy: telling })
        .no_compensation("a message cannot be unsent, and its receiver knows a repetition by its id")
        .build()
        .map_err(failed)?;
    let store = Sagas::new(pool.clone()).await.map_err(|error| StartError::other("the saga store", error))?;
    let sagas = traced_sagas(Orchestrator::new(store.clone()))
        .lease(tempo.saga_lease)
        .poll(tempo.saga_poll)
        .in_flight(tempo.sagas_in_flight)
        .provider_pause(tempo.provider_pause)
        // Merchants whose servers hang take no place from payments.
        .provider_limit(MERCHANTS, tempo.sagas_in_flight.div_ceil(8));
    let sagas =
        sagas.register(paying).register(refunding).register(notifying).start().await.map_err(failed)?;
    Ok((sagas, store))
}
