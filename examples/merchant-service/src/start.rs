//! Wires the service: database, sealing key, routes, housekeeping.

use axum::Router;
use service_shell::{Drain, Health, Id, Pool, Purging, Schema, Settings, StartError, database, shell};

use crate::app::{AppState, routes};
use crate::authenticate::Authenticator;
use crate::sealing::{Sealer, VARIABLE};
use crate::store::Store;

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
    let (nonces, failures) = (authenticator.clone(), authenticator);
    let purging = Purging::of(&settings)
        .then("nonces", move |batch| {
            let nonces = nonces.clone();
            async move { nonces.purge_nonces(batch).await }
        })
        .then("failures", move |batch| {
            let failures = failures.clone();
            async move { failures.purge_failures(batch).await }
        });
    Ok((router, purging.start(Drain::nothing()).close(&pool)))
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
