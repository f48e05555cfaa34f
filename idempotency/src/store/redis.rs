//! The Redis store: one hash per record, one script per call, times from the server.
//!
//! What it can promise is what Redis can: the claim is atomic on one server. A failover that loses an acknowledged
//! write loses the claim with it, and the key may run again. For money, prefer an SQL store; the guide says more.

mod connect;
mod reply;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{RedisError, ScriptInvocation, ServerErrorKind};

use self::reply::Reply;
use self::scripts::Scripts;
#[cfg(feature = "redis-sentinel")]
pub use self::sentinel::SentinelConnection;
use crate::machine::{self, Begin, Entry, RELEASED_FOR, Write};
use crate::{
    Answer, Claim, ErrorKind, Fence, Grant, Holder, IdempotencyManager, RecordId, Recording, Renewed,
    Resolution, Snapshot, StoreError, Tombstone, Written,
};

/// How long a connection attempt may take. The driver's own default would be a guess about somebody else's network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reply may take. After it the call has an unknown effect, and is repeatable by its token.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Records in Redis, over any connection of the `redis` crate: a [`ConnectionManager`] to one server, a
/// `SentinelConnection` to whichever server is master, or a cluster connection. One record is one key, so it needs no
/// hash tags.
#[derive(Clone)]
pub struct RedisStore<C = ConnectionManager> {
    connection: C,
    prefix: String,
    scripts: Arc<Scripts>,
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// A store over `connection`. Set its timeouts on purpose; the driver's default for replies is 500 ms.
    pub fn new(connection: C) -> Self {
        Self { connection, prefix: "idempotency:".to_owned(), scripts: Arc::new(Scripts::new()) }
    }

    /// Puts `prefix` before the names of its keys; `idempotency:` if never said.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Asks the server how far it can be trusted, so that a service can refuse to start on one that evicts records.
    ///
    /// # Cancel safety
    /// Reads only.
    ///
    /// # Errors
    /// If the server cannot be reached, or does not permit `INFO`.
    pub async fn durability(&self) -> Result<Durability, StoreError> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(classify)?;
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .unwrap_or_default()
        };
        Ok(Durability {
            never_evicts: field("maxmemory_policy") == "noeviction",
            append_only: field("aof_enabled") == "1",
            is_master: field("role") == "master",
            replicas: field("connected_slaves").parse().unwrap_or_default(),
        })
    }

    async fn call(&self, invocation: &ScriptInvocation<'_>) -> Result<Reply, StoreError> {
        let mut connection = self.connection.clone();
        Reply::read(invocation.invoke_async(&mut connection).await.map_err(classify)?)
    }

    fn key(&self, record: RecordId) -> String {
        format!("{}{}", self.prefix, record.to_hex())
    }

    /// Runs a guarded write; when it touched nothing, `verdict` says why.
    async fn write(
        &self,
        invocation: &ScriptInvocation<'_>,
        verdict: impl Fn(&Entry, u64) -> Option<Written> + Send,
    ) -> Result<Written, StoreError> {
        match self.call(invocation).await? {
            Reply::Done(_) => Ok(Written::Applied),
            Reply::Missing => Ok(Written::Missing),
            Reply::Found(entry, now) if entry.is_gone(now) => Ok(Written::Missing),
            Reply::Found(entry, now) => verdict(&entry, now).ok_or_else(disagreed),
        }
    }

    async fn finish(
        &self,
        holder: &Holder,
        write: &Write<'_>,
        state: &str,
        keep: Duration,
        fields: &[(&str, &[u8])],
    ) -> Result<Written, StoreError> {
        let mut invocation = self.scripts.finish.key(self.key(holder.record));
        invocation.arg("token").arg(holder.token.as_bytes()).arg(state).arg(machine::micros(keep));
        for (field, value) in fields {
            invocation.arg(*field).arg(*value);
        }
        self.write(&invocation, |entry, _| write.verdict(entry, holder.token)).await
    }
}

#[async_trait]
impl<C: ConnectionLike + Clone + Send + Sync + 'static> IdempotencyManager for RedisStore<C> {
    async fn begin(&self, claim: &Claim) -> Result<Answer, StoreError> {
        let mut invocation = self.scripts.begin.key(self.key(claim.record));
        invocation
            .arg(claim.token.as_bytes())
            .arg(claim.fingerprint.as_bytes())
            .arg(claim.effects.as_str())
            .arg(machine::micros(claim.terms.lease))
            .arg(machine::micros(claim.terms.lease_cap.max(claim.terms.lease)))
            .arg(machine::micros(claim.terms.retention))
            .arg(machine::micros(RELEASED_FOR));
        match self.call(&invocation).await? {
            Reply::Done(numbers) => {
                let [fence, attempt, lease] = numbers[..] else { return Err(disagreed()) };
                let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                Ok(Answer::Acquired(Grant {
                    fence: Fence(fence),
                    attempt,
                    lease: Duration::from_micros(lease),
                }))
            }
            Reply::Missing => Err(disagreed()),
            Reply::Found(entry, now) => match machine::begin(Some(&entry), claim, now, 0) {
                Begin::Answer(answer) => Ok(answer),
                Begin::Write(..) => Err(disagreed()),
            },
        }
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let mut invocation = self.scripts.renew.key(self.key(holder.record));
        invocation.arg(holder.token.as_bytes()).arg(machine::micros(lease));
        match self.call(&invocation).await? {
            Reply::Done(numbers) => {
                Ok(Renewed::Held(Duration::from_micros(numbers.first().copied().unwrap_or_default())))
            }
            Reply::Missing => Ok(Renewed::Missing),
            Reply::Found(mut entry, now) => {
                match machine::renew(Some(&mut entry), holder.token, lease, now) {
                    Renewed::Held(_) => Err(disagreed()),
                    refused => Ok(refused),
                }
            }
        }
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        let mut invocation = self.scripts.mark.key(self.key(holder.record));
        invocation.arg(holder.token.as_bytes());
        self.write(&invocation, |entry, _| Write::Mark.verdict(entry, holder.token)).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let (status, headers) = (recording.status().to_string(), recording.encode_headers());
        let fields = [
            ("status", status.as_bytes()),
            ("headers", headers.as_slice()),
            ("body", &recording.bytes()[..]),
        ];
        let write = Write::Complete(recording, retention);
        self.finish(holder, &write, "completed", retention, &fields).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let status = tombstone.status.to_string();
        let mut fields =
            vec![("status", status.as_bytes()), ("reason", tombstone.reason.as_str().as_bytes())];
        if let Some(location) = &tombstone.location {
            fields.push(("location", location));
        }
        let write = Write::Tombstone(tombstone, retention);
        self.finish(holder, &write, "tombstoned", retention, &fields).await
    }

    async fn abandon(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.finish(holder, &Write::Abandon, "released", RELEASED_FOR, &[("reason", b"")]).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let mut invocation = self.scripts.finish.key(self.key(record));
        invocation.arg("fence").arg(fence.0);
        match resolution {
            Resolution::Done(recording) => {
                invocation.arg("completed").arg(machine::micros(retention));
                invocation.arg("status").arg(recording.status());
                invocation.arg("headers").arg(recording.encode_headers());
                invocation.arg("body").arg(&recording.bytes()[..]);
            }
            Resolution::Absent => {
                invocation.arg("released").arg(machine::micros(RELEASED_FOR)).arg("reason").arg("");
            }
        }
        self.write(&invocation, |entry, now| machine::resolve_verdict(entry, fence, resolution, now)).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        match self.call(&self.scripts.get.key(self.key(record))).await? {
            Reply::Found(entry, now) if !entry.is_gone(now) => Ok(Some(Snapshot::of(&entry, now))),
            _ => Ok(None),
        }
    }

    /// Does nothing: Redis forgets what has expired by itself.
    async fn purge(&self, _limit: u32) -> Result<u64, StoreError> {
        Ok(0)
    }
}

impl<C> fmt::Debug for RedisStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// How far a Redis server can be trusted with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// `maxmemory-policy` is `noeviction`. Every other policy may evict a claim, and the key would run again.
    pub never_evicts: bool,
    /// The append-only file is on. Without it a restart forgets records.
    pub append_only: bool,
    /// The connection leads to a master.
    pub is_master: bool,
    /// How many replicas follow asynchronously. A failover to one may lose the newest claims.
    pub replicas: u32,
}

/// The script and the state machine say the same, or there is a record neither of them wrote.
fn disagreed() -> StoreError {
    StoreError::not_applied(ErrorKind::Corrupt, "the record does not follow the state machine")
}

/// What a failure of the driver or the server left behind.
fn classify(error: RedisError) -> StoreError {
    if error.is_timeout() {
        return StoreError::unknown(ErrorKind::Timeout, error);
    }
    if error.is_connection_refusal() {
        return StoreError::not_applied(ErrorKind::Unavailable, error);
    }
    match error.kind() {
        redis::ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly => StoreError::not_applied(ErrorKind::Unavailable, error),
            _ => StoreError::not_applied(ErrorKind::Rejected, error),
        },
        redis::ErrorKind::Extension if error.code() == Some("OOM") => {
            StoreError::not_applied(ErrorKind::Full, error)
        }
        redis::ErrorKind::Extension | redis::ErrorKind::AuthenticationFailed => {
            StoreError::not_applied(ErrorKind::Rejected, error)
        }
        redis::ErrorKind::InvalidClientConfig => StoreError::not_applied(ErrorKind::Rejected, error),
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
            StoreError::unknown(ErrorKind::Corrupt, error)
        }
        _ => StoreError::unknown(ErrorKind::Unavailable, error),
    }
}
