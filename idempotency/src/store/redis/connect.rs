//! Connecting to one server, in the clear or over TLS.

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult};

use super::failures::classify;
use super::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RedisStore};
use crate::error::{ErrorKind, StoreError};

impl RedisStore {
    /// Connects to one server, with timeouts of 2 s each for connecting and for a reply, and asks it how far it can be
    /// trusted: see [`RedisStore::checked`].
    ///
    /// A URL may hold a user, a password and a database: `redis://user:password@host:6379/0`. `rediss://` is TLS, needs
    /// the feature `redis-tls`, and trusts the system's root certificates; to trust others see `connect_tls`.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// If the URL is not one, or the server cannot be reached. [`ErrorKind::Rejected`] if it needs a feature that is
    /// not on, the server's certificate is not trusted, or the server refuses the password.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        permit(url, TLS)?;
        Self::over(url.into_connection_info().map(prompt).and_then(Client::open)).await
    }

    /// Connects like [`RedisStore::connect`], with certificates of your own: a root to trust instead of the system's, a
    /// client certificate for a server that asks for one, or both.
    ///
    /// Neither is shown by `Debug`. A certificate must name the host as the URL does; there is no way around that here.
    /// rustls uses the process's cryptography, and ring if the process has not chosen: call
    /// `CryptoProvider::install_default` before, to choose.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// The errors of [`RedisStore::connect`]; [`ErrorKind::Rejected`] also if the URL is not `rediss://`, or if a certificate
    /// or a key is not one. A server that does not accept the client's certificate may just hang up, which is
    /// [`ErrorKind::Unavailable`].
    ///
    /// # Examples
    /// ```no_run
    /// use probity_idempotency::RedisStore;
    /// use redis::TlsCertificates;
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let root_cert = Some(std::fs::read("/etc/payments/redis-ca.pem")?);
    /// let certificates = TlsCertificates { root_cert, client_tls: None };
    /// let store = RedisStore::connect_tls("rediss://redis.internal:6380", certificates).await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "redis-tls")]
    pub async fn connect_tls(url: &str, certificates: redis::TlsCertificates) -> Result<Self, StoreError> {
        let info = url.into_connection_info().map(prompt);
        Self::over(info.and_then(|info| Client::build_with_tls(info, certificates))).await
    }

    async fn over(client: RedisResult<Client>) -> Result<Self, StoreError> {
        let client = client.map_err(misconfigured)?;
        choose_cryptography();
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_with_config(client, config).await.map_err(not_connected)?;
        Self::checked(connection).await
    }
}

/// Sends what is written at once: a claim must not wait until the one before it is acknowledged.
pub(super) fn prompt(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.tcp_settings().clone().set_nodelay(true);
    info.set_tcp_settings(settings)
}

/// Says whether this build can speak TLS.
pub(super) const TLS: bool = cfg!(feature = "redis-tls");

/// Says whether a URL asks for TLS.
pub(super) fn is_secure(url: &str) -> bool {
    let scheme = url.trim_start().split_once(':').map_or("", |(scheme, _)| scheme);
    ["rediss", "valkeys"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))
}

/// Refuses a URL that asks for TLS if this build has none. Some other crate may have switched the driver's TLS on, but
/// with no cryptography named.
pub(super) fn permit(url: &str, tls: bool) -> Result<(), StoreError> {
    if is_secure(url) && !tls {
        let reason = "a `rediss://` URL needs the feature `redis-tls` of probity-idempotency";
        return Err(StoreError::not_applied(ErrorKind::Rejected, reason));
    }
    Ok(())
}

/// The URL, a certificate or a key is not one.
pub(super) fn misconfigured(error: RedisError) -> StoreError {
    StoreError::not_applied(ErrorKind::Rejected, error)
}

/// There is no connection yet, so no error can follow a write.
pub(super) fn not_connected(error: RedisError) -> StoreError {
    if failed_handshake(&error) {
        return StoreError::not_applied(ErrorKind::Rejected, error);
    }
    classify(error).nothing_written()
}

/// rustls asks for one choice per process, and panics if features leave it open.
#[cfg(feature = "redis-tls")]
pub(super) fn choose_cryptography() {
    use rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Another thread may be faster; its provider is then used.
        let _theirs = ring::default_provider().install_default();
    }
}

#[cfg(not(feature = "redis-tls"))]
pub(super) fn choose_cryptography() {}

/// Says whether one side refused the other's certificate, or they do not speak the same TLS.
#[cfg(feature = "redis-tls")]
fn failed_handshake(error: &RedisError) -> bool {
    use std::error::Error;
    use std::io;
    use std::sync::Arc;

    // The driver's source is the `Arc` around the error, and an `io::Error` is not the source of what it wraps.
    let source = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

#[cfg(not(feature = "redis-tls"))]
fn failed_handshake(_error: &RedisError) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_secure_url_without_the_feature_is_refused_by_its_name() {
        for url in ["rediss://redis.internal:6380", "REDISS://redis.internal", "valkeys://redis.internal"] {
            let refused = permit(url, false).err();
            let refused = refused.as_ref().map(|error| {
                (error.kind(), error.effect(), error.source().map(ToString::to_string).unwrap_or_default())
            });
            assert!(
                matches!(&refused, Some((ErrorKind::Rejected, crate::error::Effect::NotApplied, reason))
                    if reason.contains("feature `redis-tls`")),
                "{url}: {refused:?}"
            );
            assert!(permit(url, true).is_ok(), "{url}");
        }
        for url in ["redis://rediss:6379", "unix:///run/redis.sock", "no URL"] {
            assert!(permit(url, false).is_ok(), "{url}");
        }
    }
}
