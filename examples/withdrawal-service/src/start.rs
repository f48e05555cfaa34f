//! Wires the service: database, idempotency records, routes.

use std::sync::Arc;

use axum::Router;
use probity_idempotency::{Effects, IdempotencyLayer, IdempotencyManager};
use service_shell::{
    Drain, Health, HttpTimeouts, Purging, Records, Settings, StartError, database, http_client, shell,
};

use crate::app::{App, Guards, merchant_scope, operator_scope, routes};
use crate::payouts::Payouts;
use crate::store::SCHEMA;

/// Opens everything and returns the router and what to do after it stopped serving.
///
/// # Cancel safety
/// Safe: dropping the future closes what was opened; files and tables that were created stay.
///
/// # Errors
/// [`StartError`] with the remedy.
pub async fn start(settings: Settings) -> Result<(Router, Drain), StartError> {
    let pool = database::open(&settings).await?;
    SCHEMA.apply(&pool).await?;
    let records = Records::open(&settings, &pool).await?;
    saga_operations::SCHEMA.apply(&pool).await?;
    let payouts = Payouts::start(&settings, &pool).await?;
    let operations = payouts.operations(settings.own::<saga_operations::TwoOperators>()?.two_operators_from);
    let sweeping = tokio::spawn(payouts.clone().sweep());
    let asking = tokio::spawn(payouts.clone().ask_again());
    let purging = Purging::of(&settings).records(records.manager());
    let (keep, purged) = (purging.saga_keep(), payouts.clone());
    let purging = purging.then("sagas", move |batch| {
        let payouts = purged.clone();
        async move { payouts.purge(keep, batch).await }
    });
    let guards = guards(&settings, records.manager());
    let (merchants, operators) = (guards.merchants.tasks(), guards.operators_idempotency.tasks());
    let app = App { pool: pool.clone(), payouts: payouts.clone(), operations };
    let api = routes(&guards).with_state(app);
    let client = http_client(HttpTimeouts::default())?;
    let health = Health::named(settings.name).database(&pool).peer(
        "channel-adapter",
        &client,
        &settings.peers.channel,
    );
    let router = shell(settings.name, records.watched_by(health), api)?;
    let drain = purging
        .start(Drain::nothing())
        .then("merchants' requests", move || async move { merchants.drain().await })
        .then("operators' requests", move || async move { operators.drain().await })
        .then("sweeping", move || async move {
            sweeping.abort();
            asking.abort();
        })
        .then("sagas", move || payouts.drain())
        .close(&pool);
    Ok((router, drain))
}

/// A handler is one transaction that may be applied again, so a lost attempt may be taken over:
/// [`Effects::Local`].
pub(crate) fn guards(settings: &Settings, records: Arc<dyn IdempotencyManager>) -> Guards {
    Guards {
        service_token: settings.service_token.clone(),
        operators: settings.operators.clone(),
        merchants: IdempotencyLayer::new(records.clone()).scope(merchant_scope).effects(Effects::Local),
        operators_idempotency: IdempotencyLayer::new(records).scope(operator_scope).effects(Effects::Local),
    }
}
