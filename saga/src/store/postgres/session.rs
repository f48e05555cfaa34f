//! The settings that every session of the engine must have, and the check that it has them.
//!
//! Invariant: no statement of the engine runs without these settings. A connection asks for them when it begins, and is
//! then asked what is in force, because a pooler may drop them without a word. With `behind_pooler` each statement runs
//! in a transaction of its own that begins by setting them: so it also has one session of the server for itself from
//! being parsed to being executed.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::time::timeout;

use crate::error::StoreError;
use crate::store::rows::store_error;

/// The longest wait for a connection.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Settings of a session, and their values as the server shows them.
pub(super) const SETTINGS: [(&str, &str); 8] = [
    ("synchronous_commit", "on"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
    // A plan without an alternative to a scan has so high a price that it would be compiled each time.
    ("jit", "off"),
    ("lock_timeout", "500ms"),
    ("statement_timeout", "15s"),
];

/// Begins the transaction of one statement behind a pooler.
pub(super) fn begin() -> String {
    let set = SETTINGS.map(|(name, value)| format!("; SET LOCAL {name} = '{value}'")).concat();
    format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE{set}")
}

/// Makes connections ask for the settings. Behind a pooler they do not, because it refuses or drops them.
pub(super) fn asked_for(options: PgConnectOptions, behind_pooler: bool) -> PgConnectOptions {
    let options = options.application_name("probity-saga");
    if behind_pooler { options } else { options.options(SETTINGS) }
}

/// Opens a connection and closes it again, so that a fault is reported at once with the server's message: a pool would
/// try again silently.
pub(super) async fn look(options: &PgConnectOptions, behind_pooler: bool) -> Result<(), StoreError> {
    let operation = "connect to PostgreSQL";
    let found = timeout(CONNECT, first_look(options, behind_pooler)).await;
    let found = found.map_err(|_elapsed| StoreError::not_applied(operation, "the server does not answer"))?;
    let wrong = found.map_err(|error| store_error(operation, error))?;
    if wrong.is_empty() {
        return Ok(());
    }
    let why = format!(
        "the settings that the connection asked for are not in force ({}): a pooler between dropped them. Connect this \
         store to PostgreSQL directly, or use PostgresStore::builder(pool).behind_pooler()",
        wrong.join(", ")
    );
    Err(StoreError::not_applied("check the settings of a session", why))
}

async fn first_look(options: &PgConnectOptions, behind_pooler: bool) -> Result<Vec<String>, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    let wrong = if behind_pooler { Vec::new() } else { wrong_settings(&mut connection).await? };
    let _answered_already = connection.close().await;
    Ok(wrong)
}

/// The pool opens no connection without the settings.
pub(super) fn checked(options: PgPoolOptions) -> PgPoolOptions {
    options.after_connect(|connection, _| {
        Box::pin(async {
            let wrong = wrong_settings(connection).await?;
            if wrong.is_empty() {
                return Ok(());
            }
            let why = format!("a session without the settings of the saga store: {}", wrong.join(", "));
            Err(sqlx::Error::Configuration(why.into()))
        })
    })
}

/// The settings that are not as they must be, each with the value it has. One round trip, without a prepared statement.
async fn wrong_settings(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let columns = SETTINGS.map(|(name, _)| format!("current_setting('{name}')")).join(", ");
    let row = sqlx::raw_sql(AssertSqlSafe(format!("SELECT {columns}"))).fetch_one(connection).await?;
    let mut wrong = Vec::new();
    for (at, (name, wanted)) in SETTINGS.into_iter().enumerate() {
        let found: String = row.try_get(at)?;
        if found != wanted {
            wrong.push(format!("{name} is {found} and must be {wanted}"));
        }
    }
    Ok(wrong)
}
