//! A connection to a Redis Cluster that is made anew when it stops answering.
//!
//! The driver's own connection can deadlock after a node was lost under load: every key is then timed out, also those
//! of healthy nodes, until the client connects anew. Therefore the store connects anew beside the calls, and uses the
//! old connection until the new one is there.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::TcpSettings;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::connect::{TLS, choose_cryptography, misconfigured, not_connected, permit};
use super::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, RedisStore};
use crate::error::StoreError;

/// The pause between two replacements of a connection: while a node is silent, calls to it fail on every connection.
const REST: Duration = Duration::from_secs(1);

/// A connection to a Redis Cluster that replaces itself after calls went unanswered.
///
/// A call may be sent more than once, by the driver, so every error of a call that writes leaves its effect unknown.
#[derive(Clone)]
pub struct ClusterConnection(Arc<Shared>);

struct Shared {
    client: ClusterClient,
    current: Mutex<Current>,
}

/// The number tells a connection that failed from the one that replaced it.
struct Current {
    number: u64,
    connection: redis::cluster_async::ClusterConnection,
    replacing: bool,
    rests_until: Instant,
}

impl RedisStore<ClusterConnection> {
    /// Connects to the Cluster that the nodes at `urls` belong to, with timeouts of 2 s each for connecting and for a
    /// reply. `rediss://` is TLS, for all nodes.
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// If a URL is not one, or no node can be reached. [`ErrorKind::Rejected`](crate::ErrorKind) for what
    /// [`RedisStore::connect`] calls so.
    ///
    /// # Examples
    /// ```no_run
    /// use probity_idempotency::RedisStore;
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let nodes = ["redis://redis-1:6379", "redis://redis-2:6379", "redis://redis-3:6379"];
    /// let store = RedisStore::connect_cluster(&nodes).await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect_cluster(urls: &[&str]) -> Result<Self, StoreError> {
        urls.iter().try_for_each(|url| permit(url, TLS))?;
        Self::connect_cluster_builder(ClusterClientBuilder::new(urls.to_vec())).await
    }

    /// Connects through a builder of the `redis` crate, which knows everything there is to say: users, passwords and
    /// certificates. Its own timeouts do not matter; they are those of [`RedisStore::connect_cluster`].
    ///
    /// # Cancel safety
    /// A dropped call leaves no connection behind.
    ///
    /// # Errors
    /// The errors of [`RedisStore::connect_cluster`].
    pub async fn connect_cluster_builder(builder: ClusterClientBuilder) -> Result<Self, StoreError> {
        choose_cryptography();
        let builder = builder.connection_timeout(CONNECT_TIMEOUT).response_timeout(RESPONSE_TIMEOUT);
        let client = builder.tcp_settings(TcpSettings::default().set_nodelay(true)).build();
        let connection = ClusterConnection::over(client.map_err(misconfigured)?).await;
        Self::checked(connection.map_err(not_connected)?).await
    }
}

impl ClusterConnection {
    async fn over(client: ClusterClient) -> RedisResult<Self> {
        let connection = made(&client).await?;
        let current = Current { number: 0, connection, replacing: false, rests_until: Instant::now() };
        Ok(Self(Arc::new(Shared { client, current: Mutex::new(current) })))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Consistent between any two statements.
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> (u64, redis::cluster_async::ClusterConnection) {
        let current = self.current();
        (current.number, current.connection.clone())
    }

    /// Sends something, for as long as a reply may take in all, and passes the answer on.
    async fn send<T, F>(
        &self,
        sending: impl FnOnce(redis::cluster_async::ClusterConnection) -> F + Send,
    ) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let (number, connection) = self.known();
        let answer = timeout(RESPONSE_TIMEOUT, sending(connection)).await;
        let answer = answer.unwrap_or_else(|_| Err(silence()));
        if answer.as_ref().is_err_and(tells_of_a_broken_connection) {
            self.replace(number);
        }
        answer
    }

    /// Makes the connection anew, in the background, unless that is being done or was a moment ago.
    fn replace(&self, number: u64) {
        let mut current = self.current();
        if current.number != number || current.replacing || Instant::now() < current.rests_until {
            return;
        }
        current.replacing = true;
        drop(current);
        let replacing = Replacing(self.clone());
        tokio::spawn(async move {
            match made(&replacing.0.0.client).await {
                Ok(connection) => {
                    debug!("the store has connected to the Redis Cluster again");
                    let mut current = replacing.0.current();
                    current.connection = connection;
                    current.number += 1;
                }
                Err(error) => {
                    warn!(kind = ?error.kind(), "the store could not connect to the Redis Cluster again")
                }
            }
        });
    }
}

/// While it lives, the connection is being replaced.
struct Replacing(ClusterConnection);

impl Drop for Replacing {
    fn drop(&mut self) {
        let mut current = self.0.current();
        current.replacing = false;
        current.rests_until = Instant::now() + REST;
    }
}

async fn made(client: &ClusterClient) -> RedisResult<redis::cluster_async::ClusterConnection> {
    // Ask the known nodes first, and then the nodes that they name.
    let limit = 2 * (CONNECT_TIMEOUT + RESPONSE_TIMEOUT);
    timeout(limit, client.get_async_connection()).await.unwrap_or_else(|_| Err(silence()))
}

fn silence() -> RedisError {
    RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "the Redis Cluster did not answer"))
}

/// No answer, or no server left to ask.
fn tells_of_a_broken_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || matches!(error.kind(), ErrorKind::ClusterConnectionNotFound | ErrorKind::Client)
}

impl ConnectionLike for ClusterConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(move |mut connection| async move { connection.req_packed_command(command).await }))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send(move |mut connection| async move {
            connection.req_packed_commands(pipeline, offset, count).await
        }))
    }

    fn get_db(&self) -> i64 {
        0
    }
}

impl fmt::Debug for ClusterConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterConnection")
    }
}
