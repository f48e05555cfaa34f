//! A connection to whichever server the Sentinels call master.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind,
    TlsMode, Value,
};
use tokio::time::timeout;

use super::connect::{TLS, choose_cryptography, is_secure, misconfigured, not_connected, permit};
use super::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RedisStore};
use crate::error::StoreError;

/// A connection that asks the Sentinels for the master, and asks again after it broke or turned out to be a replica.
///
/// It sends nothing twice: the call that met the failover fails, and its caller repeats it with its token.
#[derive(Clone)]
pub struct SentinelConnection(Arc<Shared>);

struct Shared {
    sentinels: tokio::sync::Mutex<SentinelClient>,
    current: Mutex<Current>,
    /// The number of attempts that have failed, and the error of the last one.
    failed: Mutex<(u64, Option<RedisError>)>,
}

/// The number tells a broken connection from the one that replaced it.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<MultiplexedConnection>,
}

impl RedisStore<SentinelConnection> {
    /// Connects to the master that the Sentinels at `urls` know as `service`, with timeouts of 2 s each for connecting
    /// and for a reply.
    ///
    /// A user and a password in a URL are for that Sentinel. If one URL is `rediss://`, the master must speak TLS too:
    /// what is recorded never travels less protected than the question who is master. For a master with a password, or
    /// certificates of your own, see [`RedisStore::connect_sentinel_client`].
    ///
    /// A failover may lose the newest claims: replicas follow asynchronously.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// If a URL is not one, or no Sentinel names a master that can be reached. [`ErrorKind::Rejected`](crate::ErrorKind)
    /// for what [`RedisStore::connect`] calls so.
    pub async fn connect_sentinel(urls: &[&str], service: &str) -> Result<Self, StoreError> {
        urls.iter().try_for_each(|url| permit(url, TLS))?;
        let master = SentinelNodeConnectionInfo::default();
        let master = master.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let secure = urls.iter().any(|url| is_secure(url));
        let master = if secure { master.set_tls_mode(TlsMode::Secure) } else { master };
        let (urls, service) = (urls.to_vec(), String::from(service));
        let client = SentinelClient::build(urls, service, Some(master), SentinelServerType::Master)
            .map_err(misconfigured)?;
        Self::connect_sentinel_client(client).await
    }

    /// Connects through a client of the `redis` crate, which knows everything there is to say: users, passwords,
    /// database and certificates, for the master and for the Sentinels. Its own timeouts do not matter; they are those of
    /// [`RedisStore::connect_sentinel`].
    ///
    /// The client must ask for the master; a replica refuses every claim.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// The errors of [`RedisStore::connect_sentinel`].
    ///
    /// # Examples
    /// ```no_run
    /// use probity_idempotency::RedisStore;
    /// use redis::RedisConnectionInfo;
    /// use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
    ///
    /// # async fn start(password: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let login = RedisConnectionInfo::default().set_username("payments").set_password(password);
    /// let master = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
    /// let sentinels = vec!["redis://sentinel-1:26379", "redis://sentinel-2:26379"];
    /// let service = String::from("payments");
    /// let client = SentinelClient::build(sentinels, service, Some(master), SentinelServerType::Master)?;
    /// let store = RedisStore::connect_sentinel_client(client).await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect_sentinel_client(client: SentinelClient) -> Result<Self, StoreError> {
        choose_cryptography();
        let sentinels = tokio::sync::Mutex::new(client);
        let shared = Shared { sentinels, current: Mutex::default(), failed: Mutex::default() };
        let connection = SentinelConnection(Arc::new(shared));
        connection.connection().await.map_err(not_connected)?;
        Self::checked(connection).await
    }
}

impl SentinelConnection {
    async fn connection(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let failed_before = self.failed().0;
        let mut sentinels = self.0.sentinels.lock().await;
        // Another task may have asked while this one waited for its turn. Its failure counts here too: asking again would only
        // make the tasks behind wait as long again.
        if let Some(known) = self.known() {
            return Ok(known);
        }
        if let (failures, Some(error)) = &*self.failed()
            && *failures > failed_before
        {
            return Err(error.clone());
        }
        let connection = match ask(&mut sentinels).await {
            Ok(connection) => connection,
            Err(error) => {
                let mut failed = self.failed();
                *failed = (failed.0 + 1, Some(error.clone()));
                return Err(error);
            }
        };
        let mut current = self.current();
        current.number += 1;
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    fn known(&self) -> Option<(u64, MultiplexedConnection)> {
        let current = self.current();
        Some((current.number, current.connection.clone()?))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, (u64, Option<RedisError>)> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a result on; after one that tells of a failover the Sentinels are asked again.
    fn learn<T>(&self, number: u64, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(tells_of_a_failover) {
            let mut current = self.current();
            if current.number == number {
                current.connection = None;
            }
        }
        result
    }
}

/// Asks the Sentinels for the master, and connects to it.
async fn ask(sentinels: &mut SentinelClient) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let asking = sentinels.get_async_connection_with_config(&config);
    // This error proves that no call was sent to a master.
    let silence = ErrorKind::Server(ServerErrorKind::MasterDown);
    timeout(CONNECT_TIMEOUT + RESPONSE_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(RedisError::from((silence, "no Sentinel answered"))))
}

/// Silence of the Sentinels, or on the way to the master, is no doubt about what the master did.
fn nothing_sent(error: RedisError) -> RedisError {
    if error.is_timeout() || error.is_io_error() || error.is_connection_dropped() {
        return (ErrorKind::Server(ServerErrorKind::MasterDown), "no master was found", error.to_string())
            .into();
    }
    error
}

/// A refusal by a replica, or no answer: the master may be another one by now.
fn tells_of_a_failover(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
            )
        )
}

impl ConnectionLike for SentinelConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (number, mut connection) = self.connection().await.map_err(nothing_sent)?;
            self.learn(number, connection.req_packed_command(command).await)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (number, mut connection) = self.connection().await.map_err(nothing_sent)?;
            self.learn(number, connection.req_packed_commands(pipeline, offset, count).await)
        })
    }

    fn get_db(&self) -> i64 {
        self.known().map_or(0, |(_, connection)| connection.get_db())
    }
}

impl fmt::Debug for SentinelConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentinelConnection")
    }
}
