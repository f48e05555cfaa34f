//! The durability of a Redis deployment, as its servers report it.

use redis::Value;
use redis::aio::ConnectionLike;
use tracing::{info, warn};

use super::RedisStore;
use super::failures::classify;
use crate::error::{ErrorKind, StoreError, Unreadable};

/// The durability of the Redis servers that hold records; each statement is true of each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durability {
    /// `maxmemory-policy` is `noeviction`. Every other policy may evict a claim, and the key would run again.
    pub never_evicts: bool,
    /// The append-only file is on. Without it a restart forgets records.
    pub append_only: bool,
    /// The connection leads to masters.
    pub is_master: bool,
    /// The number of replicas that follow asynchronously, of all servers together. A failover to one may lose the
    /// newest claims.
    pub replicas: u32,
    /// The number of servers that were asked: one, or every master of a cluster.
    pub servers: u32,
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// A store over `connection` whose servers have been asked how far they can be trusted; what is wrong with them is
    /// logged as warnings. To refuse to start on them, ask [`RedisStore::durability`] too. A user who is not permitted
    /// each of [`RedisStore::COMMANDS`] is refused.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Errors
    /// If a server cannot be reached; [`ErrorKind::Rejected`] if a command is not permitted. A server that does not permit
    /// `INFO` is taken as it is, with a warning.
    pub async fn checked(connection: C) -> Result<Self, StoreError> {
        let store = Self::new(connection);
        let servers = match store.durability().await {
            Ok(found) => {
                found.report();
                Some(found.servers)
            }
            Err(error) if error.kind() == ErrorKind::Rejected => {
                warn!(
                    "this Redis does not show whether it evicts or forgets records; permit INFO to its user"
                );
                None
            }
            Err(error) => return Err(error),
        };
        store.refuse_the_unpermitted(servers).await?;
        Ok(store)
    }

    /// Asks the server, or every master of a cluster, how far it can be trusted, so that a service can refuse to start
    /// on one that evicts records.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Errors
    /// If a server cannot be reached, or does not permit `INFO`.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let mut connection = self.connection.clone();
        let asking = redis::cmd("INFO").query_async(&mut connection).await;
        let told: Value = asking.map_err(|error| classify(error).nothing_written())?;
        let servers = match told {
            // A cluster connection asks every master and returns their answers by address.
            Value::Map(answers) => answers.into_iter().map(|(_, answer)| answer).collect(),
            answer => vec![answer],
        };
        let each = servers.iter().map(Durability::of_server).collect::<Result<Vec<_>, _>>();
        let together =
            each.and_then(|each| each.into_iter().reduce(Durability::and).ok_or(Unreadable("INFO")));
        together.map_err(|unreadable| StoreError::from(unreadable).nothing_written())
    }
}

impl Durability {
    fn of_server(told: &Value) -> Result<Self, Unreadable> {
        let told = match told {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
            Value::VerbatimString { text, .. } | Value::SimpleString(text) => text.into(),
            _ => return Err(Unreadable("INFO")),
        };
        let field = |name: &str| {
            let mut lines = told.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(str::trim).unwrap_or_default()
        };
        Ok(Self {
            never_evicts: field("maxmemory_policy") == "noeviction",
            append_only: field("aof_enabled") == "1",
            is_master: field("role") == "master",
            replicas: field("connected_slaves").parse().unwrap_or_default(),
            servers: 1,
        })
    }

    const fn and(self, other: Self) -> Self {
        Self {
            never_evicts: self.never_evicts && other.never_evicts,
            append_only: self.append_only && other.append_only,
            is_master: self.is_master && other.is_master,
            replicas: self.replicas + other.replicas,
            servers: self.servers + other.servers,
        }
    }

    fn report(self) {
        let Self { never_evicts, append_only, is_master, replicas, servers } = self;
        info!(
            servers,
            never_evicts, append_only, is_master, replicas, "idempotency records are kept in Redis"
        );
        if !never_evicts {
            warn!(
                "this Redis may evict records, and their keys would run again; set maxmemory-policy noeviction"
            );
        }
        if !append_only {
            warn!("this Redis forgets records when it restarts; set appendonly yes");
        }
        if !is_master {
            warn!("this Redis is a replica and refuses every claim; connect to its master");
        }
        if replicas > 0 {
            warn!(
                replicas,
                "a failover of this Redis may lose the newest claims; their keys would run again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The warnings about a server that answers this to `INFO`.
    fn warned(told: &str) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            Durability::of_server(&Value::BulkString(told.into())).expect("reads").report();
        });
        let said = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        assert!(said.contains("idempotency records are kept in Redis"), "{said}");
        said.lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
    }

    #[test]
    fn each_fault_of_a_server_is_one_warning() {
        let sound = "role:master\r\nconnected_slaves:0\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        assert_eq!(warned(sound), [""; 0]);
        for (said, instead, warning) in [
            ("noeviction", "allkeys-lru", "may evict records"),
            ("aof_enabled:1", "aof_enabled:0", "forgets records when it restarts"),
            ("role:master", "role:slave", "is a replica and refuses every claim"),
            ("slaves:0", "slaves:2", "may lose the newest claims"),
        ] {
            let warnings = warned(&sound.replace(said, instead));
            assert!(matches!(&warnings[..], [only] if only.contains(warning)), "{instead}: {warnings:?}");
        }
        // A missing setting counts as an unsafe one.
        assert_eq!(warned("").len(), 3);
    }
}
