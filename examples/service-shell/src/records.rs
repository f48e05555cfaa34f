//! The place of idempotency records: the service's own database, or Redis when `REDIS_URL` is set.
//!
//! In the database a restart loses nothing, and there is nothing more to run. In Redis a claim costs the database nothing;
//! how much a crash of Redis may forget is its own configuration (`appendfsync`), which the store reports at the start.

use std::fmt;
use std::sync::Arc;

use clap::Args;
use probity_idempotency::IdempotencyManager;

use crate::database::command;
use crate::{Health, POSTGRES, Pool, Settings, StartError};

/// True in a build with `--features redis`.
pub const REDIS: bool = cfg!(feature = "redis");

#[cfg(not(feature = "postgres"))]
type InDatabase = probity_idempotency::SqliteStore;
#[cfg(feature = "postgres")]
type InDatabase = probity_idempotency::PostgresStore;

/// The settings that name Redis.
#[derive(Args, Clone)]
#[command(next_help_heading = "Redis, for idempotency")]
pub(crate) struct RedisArguments {
    /// One server, `redis://HOST` or `rediss://HOST` for TLS; several URLs with commas between are the nodes of a cluster
    /// [default: records are kept in the database].
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// The name of the master that the Sentinels at REDIS_URL watch.
    #[arg(long, env = "REDIS_SENTINEL_MASTER")]
    redis_sentinel_master: Option<String>,
    /// The host of Redis, instead of a URL.
    #[arg(long, env = "REDIS_HOST")]
    redis_host: Option<String>,
    /// The port of Redis at that host [default: 6379].
    #[arg(long, env = "REDIS_PORT")]
    redis_port: Option<u16>,
}

/// The servers: one, the nodes of a cluster, or the Sentinels that watch a master.
#[derive(Clone)]
#[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only a build with `redis` connects"))]
pub(crate) struct Redis {
    urls: Vec<String>,
    master: Option<String>,
}

impl RedisArguments {
    /// Returns true if Redis is wanted.
    pub(crate) fn is_set(&self) -> bool {
        self.redis_url.is_some() || self.redis_host.is_some()
    }

    /// Reads the choice and refuses what this build cannot serve.
    pub(crate) fn parse(self, service: &str) -> Result<Option<Redis>, StartError> {
        let (name, url) = match (&self.redis_url, &self.redis_host) {
            (Some(url), _) => ("REDIS_URL", url.clone()),
            (None, Some(host)) => {
                ("REDIS_HOST", format!("redis://{host}:{}", self.redis_port.unwrap_or(6379)))
            }
            (None, None) => return self.unused(),
        };
        if !REDIS {
            let command = command(service, POSTGRES, true);
            return Err(StartError::setting(
                name,
                format!(
                    "is set, but this build keeps idempotency in its database; unset it, or run: {command}"
                ),
            ));
        }
        let urls: Vec<String> = url.split(',').map(|url| url.trim().to_owned()).collect();
        if !urls.iter().all(|url| url.starts_with("redis://") || url.starts_with("rediss://")) {
            return Err(StartError::setting(name, "must be redis:// or rediss:// URLs, with commas between"));
        }
        Ok(Some(Redis { urls, master: self.redis_sentinel_master }))
    }

    /// No Redis, and no setting of one.
    fn unused(self) -> Result<Option<Redis>, StartError> {
        let name = match (self.redis_port, self.redis_sentinel_master) {
            (Some(_), _) => "REDIS_PORT",
            (None, Some(_)) => "REDIS_SENTINEL_MASTER",
            (None, None) => return Ok(None),
        };
        Err(StartError::setting(
            name,
            "belongs to REDIS_URL or REDIS_HOST, which is not set: set it, or unset this one",
        ))
    }
}

/// The idempotency records of a service.
#[derive(Clone)]
pub struct Records {
    manager: Arc<dyn IdempotencyManager>,
    #[cfg(feature = "redis")]
    redis: Option<Ask>,
}

#[cfg(feature = "redis")]
type Ask = Arc<dyn Fn() -> futures_util::future::BoxFuture<'static, Result<(), String>> + Send + Sync>;

impl Records {
    /// Opens the records where the settings say.
    ///
    /// # Cancel safety
    /// Safe: dropping the future closes what was opened; a table that was created stays.
    ///
    /// # Errors
    /// [`StartError::Other`] when the database or Redis does not answer, or refuses us.
    pub async fn open(settings: &Settings, pool: &Pool) -> Result<Records, StartError> {
        #[cfg(feature = "redis")]
        if let Some(redis) = &settings.redis {
            return in_redis(redis)
                .await
                .map_err(|error| StartError::other("the idempotency records", error));
        }
        #[cfg(not(feature = "redis"))]
        let _ = &settings.redis; // `None`: another build refused it
        let opened = InDatabase::new(pool.clone()).await;
        let store = opened.map_err(|error| StartError::other("the idempotency records", error))?;
        Ok(Records {
            manager: Arc::new(store),
            #[cfg(feature = "redis")]
            redis: None,
        })
    }

    /// The store, for an idempotency layer.
    #[must_use]
    pub fn manager(&self) -> Arc<dyn IdempotencyManager> {
        Arc::clone(&self.manager)
    }

    /// Adds Redis to what a service cannot work without, if the records are there.
    #[must_use]
    pub fn watched_by(&self, health: Health) -> Health {
        #[cfg(feature = "redis")]
        if let Some(ask) = &self.redis {
            let ask = Arc::clone(ask);
            return health.depends("redis", true, move || ask());
        }
        health
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

#[cfg(feature = "redis")]
async fn in_redis(redis: &Redis) -> Result<Records, probity_idempotency::StoreError> {
    use probity_idempotency::RedisStore;
    let urls: Vec<&str> = redis.urls.iter().map(String::as_str).collect();
    match (&redis.master, urls.as_slice()) {
        (Some(master), urls) => RedisStore::connect_sentinel(urls, master).await.map(kept),
        (None, [url]) => RedisStore::connect(url).await.map(kept),
        (None, urls) => RedisStore::connect_cluster(urls).await.map(kept),
    }
}

#[cfg(feature = "redis")]
fn kept<C>(store: probity_idempotency::RedisStore<C>) -> Records
where
    C: redis::aio::ConnectionLike + Clone + Send + Sync + 'static,
{
    let asked = store.clone();
    let ask: Ask = Arc::new(move || {
        let store = asked.clone();
        // The question of a request; `INFO` may not be permitted.
        Box::pin(async move { store.permitted().await.map_err(|error| error.to_string()) })
    });
    Records { manager: Arc::new(store), redis: Some(ask) }
}
