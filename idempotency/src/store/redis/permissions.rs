//! Names the commands that a Redis user must be permitted, and asks the server whether they are.

use redis::Value;
use redis::aio::{ConnectionLike, ConnectionManager};
use tracing::warn;

use super::RedisStore;
use crate::core::identity::RecordId;
use crate::error::{ErrorKind, StoreError, Unreadable};
use crate::token::OwnerToken;

/// The number of keys that are asked about for each server of a cluster beyond the first. The keys are random, so there are
/// enough of them for every server to have one.
const KEYS_PER_SERVER: u32 = 16;
/// The number of keys that are asked about if the number of servers is not known.
const KEYS: u32 = 48;

/// The number of keys that are asked about: one server has every key, each of several has some of many.
fn keys_for(servers: Option<u32>) -> u32 {
    servers.map_or(KEYS, |servers| 1 + KEYS_PER_SERVER * servers.saturating_sub(1))
}

impl RedisStore<ConnectionManager> {
    /// The commands that the store's user must be permitted, for keys that begin with the store's prefix. `INFO` beside
    /// them lets [`RedisStore::checked`] see how far the server can be trusted.
    ///
    /// The commands that the driver itself sends when it connects are in the chapter on Redis.
    pub const COMMANDS: [&'static str; 8] =
        ["eval", "evalsha", "get", "getrange", "pexpiretime", "set", "setrange", "time"];
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// Asks whether the user of this connection may do what the store needs, without changing anything.
    ///
    /// [`RedisStore::checked`] and the `connect` functions have asked; it is worth asking again after
    /// [`RedisStore::prefix`], since permissions are given for names of keys.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] with the names of the commands that are not permitted. Other kinds if a server cannot say.
    pub async fn permitted(&self) -> Result<(), StoreError> {
        self.permitted_on(self.durability().await.ok().map(|found| found.servers)).await
    }

    /// The same of this many servers, `None` if it is not known.
    pub(super) async fn permitted_on(&self, servers: Option<u32>) -> Result<(), StoreError> {
        for _ in 0..keys_for(servers) {
            let key = self.key(nowhere()?);
            let mut connection = self.connection.clone();
            let asked = self.scripts.permitted.call(&key).send(&mut connection).await;
            let told = asked.map_err(|failure| failure.nothing_written())?;
            let refused = read(told).map_err(|unreadable| StoreError::from(unreadable).nothing_written())?;
            if !refused.is_empty() {
                return Err(StoreError::not_applied(ErrorKind::Rejected, advice(&refused)));
            }
        }
        Ok(())
    }

    /// Refuses a user who lacks a permission that the store needs. If the server cannot be asked now, a warning is
    /// logged, and a missing permission shows in later calls.
    pub(super) async fn refuse_the_unpermitted(&self, servers: Option<u32>) -> Result<(), StoreError> {
        match self.permitted_on(servers).await {
            Err(error) if error.kind() == ErrorKind::Rejected => Err(error),
            Err(error) => {
                warn!(kind = ?error.kind(), "this Redis cannot be asked now whether its user has the permissions that the store needs");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// A record that does not exist.
fn nowhere() -> Result<RecordId, StoreError> {
    let (first, second) = (OwnerToken::generate()?, OwnerToken::generate()?);
    let mut record = [0; 32];
    record[..16].copy_from_slice(first.as_bytes());
    record[16..].copy_from_slice(second.as_bytes());
    Ok(RecordId::from_bytes(record))
}

/// The commands that are not permitted, and what the server said to each.
fn read(told: Value) -> Result<Vec<(String, String)>, Unreadable> {
    let told: Vec<String> = redis::from_redis_value(told).map_err(|_| Unreadable("list of commands"))?;
    Ok(told.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

fn advice(refused: &[(String, String)]) -> String {
    let commands: Vec<&str> = refused.iter().map(|(command, _)| command.as_str()).collect();
    let said = refused.first().map_or("", |(_, said)| said.as_str());
    format!(
        "the Redis user may not run {} on keys of this store; permit each of RedisStore::COMMANDS for its prefix ({said})",
        commands.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_probed_once_and_several_with_enough_keys_to_reach_each() {
        assert_eq!(keys_for(Some(1)), 1);
        for servers in 2..=100 {
            let misses_one = 1.0 - 1.0 / f64::from(servers);
            let keys = i32::try_from(keys_for(Some(servers))).expect("a few thousand");
            let some_is_left_out = f64::from(servers) * misses_one.powi(keys);
            assert!(some_is_left_out < 1e-4, "of {servers}: {some_is_left_out}");
        }
    }
}
