//! Was this request signed by a merchant, just now, for the first time?
//!
//! Invariant: a caller learns only yes, no, or "locked". An unknown key costs the same work as a known one,
//! the comparison takes the same time wherever it fails, and the database's clock decides both windows.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use service_shell::signature::{WINDOW_SECONDS, canonical, verify};
use service_shell::{Id, Pool, Problem, random_text, sql_unix_now};
use utoipa::ToSchema;

use crate::domain::Mode;
use crate::sealing::Sealer;

const FAILURES_MAX: i64 = 10;
const FAILURE_WINDOW: i64 = 15 * 60;
/// A timestamp may lie one window ahead and is good for one window more.
const NONCE_LIFETIME: i64 = 300;
const FIELD_MAX: usize = 128;
const PATH_MAX: usize = 8192;

/// The parts of a request that claims to be signed by a merchant.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthenticateRequest {
    /// `X-API-Key`.
    pub api_key: String,
    /// `X-Timestamp`, as sent.
    pub timestamp: String,
    /// `X-Nonce`.
    pub nonce: String,
    /// `X-Signature`.
    pub signature: String,
    /// The method, upper case.
    pub method: String,
    /// Path and query, as sent.
    pub path_and_query: String,
    /// Lower-case hex SHA-256 of the body.
    pub body_sha256: String,
    /// The address from which the request came; failures are counted per key and address.
    pub address: String,
}

impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateRequest").field("api_key", &self.api_key).finish_non_exhaustive()
    }
}

/// The merchant that signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Authenticated {
    /// The merchant.
    pub merchant_id: Id,
    /// The data that the key may touch.
    pub mode: Mode,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: Id,
    merchant_id: Id,
    mode: Mode,
    sealed_secret: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct Gate {
    now: i64,
    failures: Option<i64>,
    window_started: Option<i64>,
}

/// Decides; see the module.
#[derive(Clone)]
pub struct Authenticator {
    pool: Pool,
    sealer: Sealer,
    /// Verified instead of a secret that does not exist.
    decoy: (Id, Vec<u8>),
}

impl Authenticator {
    pub(crate) fn new(pool: Pool, sealer: Sealer) -> Result<Authenticator, crate::sealing::DoesNotOpen> {
        let id = Id::new();
        let decoy = (id, sealer.seal(id, &random_text(48))?);
        Ok(Authenticator { pool, sealer, decoy })
    }

    /// Verifies a signed request and uses up its nonce.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the nonce used, or a failure uncounted; it never authenticates anybody.
    ///
    /// # Errors
    /// 401 without a reason; 429 with `Retry-After` after ten failures; 503 when the database does not answer.
    pub async fn authenticate(&self, request: &AuthenticateRequest) -> Result<Authenticated, Problem> {
        if !fits(request) {
            return Err(Problem::unauthenticated());
        }
        let gate = self.gate(request).await?;
        if let (Some(FAILURES_MAX..), Some(started)) = (gate.failures, gate.window_started) {
            let wait = started.saturating_add(FAILURE_WINDOW).saturating_sub(gate.now).max(1);
            return Err(locked(Duration::from_secs(wait.unsigned_abs())));
        }
        match self.verified(request, gate.now).await? {
            Some(who) => {
                if gate.failures.is_some() {
                    self.forget_failures(request).await?;
                }
                Ok(who)
            }
            None => {
                self.count_failure(request).await?;
                Err(Problem::unauthenticated())
            }
        }
    }

    async fn verified(
        &self,
        request: &AuthenticateRequest,
        now: i64,
    ) -> Result<Option<Authenticated>, Problem> {
        let found: Option<KeyRow> = sqlx::query_as(
            "SELECT k.id, k.merchant_id, k.mode, k.sealed_secret
               FROM api_keys k JOIN merchants m ON m.id = k.merchant_id
              WHERE k.api_key = $1 AND k.status = 'active' AND m.status = 'active'",
        )
        .bind(&request.api_key)
        .fetch_optional(&self.pool)
        .await?;
        let (id, sealed) = match &found {
            Some(key) => (key.id, &key.sealed_secret),
            None => (self.decoy.0, &self.decoy.1),
        };
        let secret = self.sealer.open(id, sealed).map_err(|error| Problem::internal(&error))?;
        let AuthenticateRequest { method, path_and_query, timestamp, nonce, body_sha256, .. } = request;
        let text = canonical(method, path_and_query, timestamp, nonce, body_sha256);
        let signed = verify(&secret, text.as_bytes(), &request.signature);
        let recent = timestamp.parse().is_ok_and(|at: i64| now.abs_diff(at) <= WINDOW_SECONDS);
        match found {
            // The nonce is used up last: only who holds the secret may write here.
            Some(key) if signed & recent && self.first_use(key.id, nonce).await? => {
                Ok(Some(Authenticated { merchant_id: key.merchant_id, mode: key.mode }))
            }
            _ => Ok(None),
        }
    }

    async fn gate(&self, request: &AuthenticateRequest) -> Result<Gate, sqlx::Error> {
        sqlx::query_as(concat!(
            "SELECT ",
            sql_unix_now!(),
            " AS now, f.failures, f.window_started FROM (SELECT 1 AS one) AS always
              LEFT JOIN auth_failures f
                ON f.api_key = $1 AND f.address = $2 AND f.window_started > ",
            sql_unix_now!(),
            " - $3"
        ))
        .bind(&request.api_key)
        .bind(&request.address)
        .bind(FAILURE_WINDOW)
        .fetch_one(&self.pool)
        .await
    }

    async fn first_use(&self, key: Id, nonce: &str) -> Result<bool, sqlx::Error> {
        let inserted = sqlx::query(concat!(
            "INSERT INTO used_nonces (api_key_id, nonce, used_at) VALUES ($1, $2, ",
            sql_unix_now!(),
            ") ON CONFLICT DO NOTHING"
        ))
        .bind(key)
        .bind(nonce)
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn count_failure(&self, request: &AuthenticateRequest) -> Result<(), sqlx::Error> {
        sqlx::query(concat!(
            "INSERT INTO auth_failures (api_key, address, failures, window_started) VALUES ($1, $2, 1, ",
            sql_unix_now!(),
            ") ON CONFLICT (api_key, address) DO UPDATE SET
                 failures = CASE WHEN auth_failures.window_started > excluded.window_started - $3
                                 THEN auth_failures.failures + 1 ELSE 1 END,
                 window_started = CASE WHEN auth_failures.window_started > excluded.window_started - $3
                                       THEN auth_failures.window_started ELSE excluded.window_started END"
        ))
        .bind(&request.api_key)
        .bind(&request.address)
        .bind(FAILURE_WINDOW)
        .execute(&self.pool)
        .await?;
        metrics::counter!("merchant_authentication_failures_total").increment(1);
        Ok(())
    }

    async fn forget_failures(&self, request: &AuthenticateRequest) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM auth_failures WHERE api_key = $1 AND address = $2")
            .bind(&request.api_key)
            .bind(&request.address)
            .execute(&self.pool)
            .await
            .map(drop)
    }

    /// Forgets nonces that no request can bring again.
    pub(crate) async fn purge_nonces(&self, batch: u32) -> Result<u64, sqlx::Error> {
        let sql = concat!(
            "DELETE FROM used_nonces WHERE (api_key_id, nonce) IN
             (SELECT api_key_id, nonce FROM used_nonces WHERE used_at < ",
            sql_unix_now!(),
            " - $1 LIMIT $2)"
        );
        self.purge(sql, NONCE_LIFETIME, batch).await
    }

    /// Forgets failures that count no more.
    pub(crate) async fn purge_failures(&self, batch: u32) -> Result<u64, sqlx::Error> {
        let sql = concat!(
            "DELETE FROM auth_failures WHERE (api_key, address) IN
             (SELECT api_key, address FROM auth_failures WHERE window_started <= ",
            sql_unix_now!(),
            " - $1 LIMIT $2)"
        );
        self.purge(sql, FAILURE_WINDOW, batch).await
    }

    async fn purge(&self, sql: &'static str, age: i64, batch: u32) -> Result<u64, sqlx::Error> {
        let purged = sqlx::query(sql).bind(age).bind(i64::from(batch)).execute(&self.pool).await?;
        Ok(purged.rows_affected())
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").finish_non_exhaustive()
    }
}

/// Values that no signer sends are refused before they are stored anywhere.
fn fits(request: &AuthenticateRequest) -> bool {
    let short = [&request.api_key, &request.timestamp, &request.nonce, &request.signature, &request.address]
        .into_iter()
        .all(|field| (1..=FIELD_MAX).contains(&field.len()) && field.bytes().all(|b| b.is_ascii_graphic()));
    short
        && request.method.len() <= 16
        && request.path_and_query.len() <= PATH_MAX
        && request.body_sha256.len() == 64
}

fn locked(wait: Duration) -> Problem {
    Problem::new(
        http::StatusCode::TOO_MANY_REQUESTS,
        "too-many-failures",
        "too many failed attempts with this key from this address: wait as long as Retry-After says",
    )
    .retry_after(wait)
}
