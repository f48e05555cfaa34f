//! Wires the service: database, sealing key, routes, housekeeping.

use std::time::Duration;

use axum::Router;
use service_shell::{Drain, Health, Id, Pool, Schema, Settings, StartError, database, shell};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::app::{AppState, routes};
use crate::authenticate::Authenticator;
use crate::sealing::{Sealer, VARIABLE};
use crate::store::Store;

const PURGE_EVERY: Duration = Duration::from_secs(60);
const KNOWN_TEXT: &str = "merchant-service";

const SCHEMA: Schema = Schema {
    service: "merchant-service",
    sqlite: &[include_str!("../schema/sqlite.sql")],
    postgres: &[include_str!("../schema/postgres.sql")],
};

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
    let sealer = Sealer::from_settings(&settings)?;
    check_sealing_key(&pool, &sealer).await?;
    let authenticator = Authenticator::new(pool.clone(), sealer.clone())
        .map_err(|error| StartError::other("the sealing key", error))?;
    let state = AppState {
        store: Store::new(pool.clone(), sealer),
        authenticator: authenticator.clone(),
        operators: settings.operators.clone(),
    };
    let api = routes(&state, &settings.service_token).with_state(state);
    let health = Health::named(settings.name).database(&pool);
    let router = shell(settings.name, health, api)?;
    Ok((router, housekeeping(authenticator).close(&pool)))
}

/// A database sealed with another key must be found at start, not at the first payment.
async fn check_sealing_key(pool: &Pool, sealer: &Sealer) -> Result<(), StartError> {
    let failed = |source: sqlx::Error| StartError::Database { service: SCHEMA.service.to_owned(), source };
    let row = Id(uuid::Uuid::nil());
    let known = sealer.seal(row, KNOWN_TEXT).map_err(|error| StartError::other("the sealing key", error))?;
    sqlx::query("INSERT INTO sealing_check (id, sealed) VALUES (1, $1) ON CONFLICT (id) DO NOTHING")
        .bind(known)
        .execute(pool)
        .await
        .map_err(failed)?;
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM sealing_check WHERE id = 1")
        .fetch_one(pool)
        .await
        .map_err(failed)?;
    match sealer.open(row, &sealed) {
        Ok(_) => Ok(()),
        Err(_) => Err(StartError::Setting {
            name: VARIABLE.to_owned(),
            problem: "does not open the secrets of this database (or its key file is not the one they were \
                      sealed with): set it to the key used before"
                .to_owned(),
        }),
    }
}

fn housekeeping(authenticator: Authenticator) -> Drain {
    let (stop, mut stopped) = watch::channel(false);
    let purging = tokio::spawn(async move {
        let mut ticks = interval(PURGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = authenticator.purge().await {
                tracing::warn!(%error, "old nonces stay until the next round");
            }
        }
    });
    Drain::nothing().then("housekeeping", move || async move {
        stop.send_replace(true);
        // A panic of the purge was logged where it happened.
        drop(purging.await);
    })
}
