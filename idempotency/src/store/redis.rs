//! The Redis store: one string per record, one script per call, times from the server.
//!
//! It promises no more than Redis does: the claim is atomic on one server. A failover that loses an acknowledged
//! write loses the claim with it, and the key may run again. For money, prefer an SQL store; the guide says more.

#[cfg(feature = "redis-cluster")]
mod cluster;
mod connect;
mod durability;
mod failures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod packed;
mod permissions;
mod reply;
mod scripts;
#[cfg(feature = "redis-sentinel")]
mod sentinel;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionLike, ConnectionManager};

#[cfg(feature = "redis-cluster")]
pub use self::cluster::ClusterConnection;
pub use self::durability::Durability;
use self::failures::sends_once;
use self::reply::Reply;
use self::scripts::{Call, Scripts};
#[cfg(feature = "redis-sentinel")]
pub use self::sentinel::SentinelConnection;
use crate::core::claim::{Answer, Claim, Grant, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::machine::{self, Decision, Entry, RELEASED_FOR, Write};
use crate::core::recording::{Recording, Tombstone};
use crate::error::{ErrorKind, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot};
use crate::token::Holder;

/// The time that a connection attempt may take. The driver's own default would be a guess about another's
/// network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The time that a reply may take. After it the call has an unknown effect, and is repeatable by its token.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Records in Redis 7 or later, over any connection of the `redis` crate: a [`ConnectionManager`] to one server, a
/// `SentinelConnection` to whichever server is master, or a `ClusterConnection`. One record is one key, so it needs no
/// hash tags.
#[derive(Clone)]
pub struct RedisStore<C = ConnectionManager> {
    connection: C,
    prefix: String,
    scripts: Arc<Scripts>,
    /// The connection sends a call once, so an error is the error of the only try.
    sends_once: bool,
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisStore<C> {
    /// A store over `connection`. Set its timeouts on purpose; the driver's default for replies is 500 ms. It sends no
    /// command yet: see [`RedisStore::checked`].
    pub fn new(connection: C) -> Self {
        let (prefix, scripts) = ("idempotency:".to_owned(), Arc::new(Scripts::new()));
        Self { connection, prefix, scripts, sends_once: sends_once::<C>() }
    }

    /// Puts `prefix` before the names of its keys; `idempotency:` if never said.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    async fn send(&self, call: Call<'_>) -> Result<Reply, StoreError> {
        let mut connection = self.connection.clone();
        let sent = call.send(&mut connection).await;
        let answer = sent.map_err(|failure| if self.sends_once { failure } else { failure.of_several() })?;
        Ok(Reply::read(answer)?)
    }

    fn key(&self, record: RecordId) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 64);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(record.hex().as_bytes());
        key
    }

    /// Sends a guarded write; when it touched nothing, `verdict` says why.
    async fn write(
        &self,
        call: Call<'_>,
        verdict: impl Fn(&Entry, u64) -> Option<Written> + Send,
    ) -> Result<Written, StoreError> {
        match self.send(call).await? {
            Reply::Number(1) => Ok(Written::Applied),
            untouched => match untouched.into_entry()? {
                None => Ok(Written::Missing),
                Some((entry, now)) => verdict(&entry, now).ok_or_else(disagreed),
            },
        }
    }

    async fn finish(
        &self,
        holder: &Holder,
        write: &Write<'_>,
        state: &str,
        keep: Duration,
        tail: &[u8],
    ) -> Result<Written, StoreError> {
        let key = self.key(holder.record);
        let (state, keep) = kept(state, keep);
        let call = self.scripts.finish.call(&key).arg(&packed::held_by(&holder.token)[..]);
        let call = call.arg(state).arg(tail).arg(keep);
        self.write(call, |entry, _| write.verdict(entry, holder.token)).await
    }
}

/// Answers a claim by the record that is there; `unless` it could be granted.
fn judged(found: Reply, claim: &Claim, unless: StoreError) -> Result<Answer, StoreError> {
    let Some((entry, now)) = found.into_entry()? else { return Err(unless) };
    match machine::claim(Some(&entry), claim, now, 0) {
        Decision::Answer(Answer::InFlight { retry_after }) => {
            Ok(Answer::InFlight { retry_after: packed::left(retry_after) })
        }
        Decision::Answer(answer) => Ok(answer),
        Decision::Write(..) => Err(unless),
    }
}

/// The state and the milliseconds of a record that is kept this long. A record with no retention is free, and is
/// remembered for a while so that fences rise.
fn kept(state: &str, keep: Duration) -> (&str, u64) {
    if keep.is_zero() { ("g", packed::keep(RELEASED_FOR)) } else { (state, packed::keep(keep)) }
}

#[async_trait]
impl<C: ConnectionLike + Clone + Send + Sync + 'static> IdempotencyManager for RedisStore<C> {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        let (key, keep) = (self.key(claim.record), packed::claim_kept(claim));
        let call = self.scripts.claim.call(&key).arg(packed::claimed(claim, keep)).arg(keep);
        match self.send(call).await {
            Ok(Reply::Number(end)) => {
                let fence = Fence(end.saturating_sub(keep) * 1000);
                Ok(Answer::Acquired(Grant { fence, attempt: 1, lease: claim.terms.lease }))
            }
            Ok(Reply::Done(numbers)) => {
                let [fence, attempt, left] = numbers[..] else { return Err(disagreed()) };
                let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                let lease = packed::believed(left).min(claim.terms.lease);
                Ok(Answer::Acquired(Grant { fence: Fence(fence), attempt, lease }))
            }
            Ok(found) => judged(found, claim, disagreed()),
            // A full server refuses new keys and still reads existing ones.
            Err(full) if full.kind() == ErrorKind::Full => {
                judged(self.send(self.scripts.get.call(&key)).await?, claim, full)
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let key = self.key(holder.record);
        let call = self.scripts.renew.call(&key).arg(&packed::held_by(&holder.token)[..]);
        match self.send(call.arg(packed::lease(lease))).await? {
            Reply::Done(numbers) => {
                let left = numbers.first().copied().map_or(Duration::ZERO, packed::believed);
                Ok(Renewed::Held(left.min(lease)))
            }
            untouched => match untouched.into_entry()? {
                None => Ok(Renewed::Missing),
                Some((mut entry, now)) => match machine::renew(Some(&mut entry), holder.token, lease, now) {
                    Renewed::Held(_) => Err(disagreed()),
                    refused => Ok(refused),
                },
            },
        }
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        let key = self.key(holder.record);
        let call = self.scripts.mark.call(&key).arg(&packed::held_by(&holder.token)[..]);
        let call = call.arg(packed::BY_HAND);
        self.write(call, |entry, _| Write::Mark.verdict(entry, holder.token)).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let write = Write::Complete(recording, retention);
        self.finish(holder, &write, "c", retention, &packed::completed(recording)).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let write = Write::Tombstone(tombstone, retention);
        self.finish(holder, &write, "t", retention, &packed::tombstoned(tombstone)).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        self.finish(holder, &Write::Release, "r", RELEASED_FOR, b"").await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let key = self.key(record);
        let (state, keep, tail) = match resolution {
            Resolution::Done(recording) => ("c", retention, packed::completed(recording)),
            Resolution::Absent => ("r", RELEASED_FOR, Vec::new()),
        };
        let (state, keep) = kept(state, keep);
        let call = self.scripts.resolve.call(&key).arg(fence.0).arg(state).arg(tail).arg(keep);
        self.write(call, |entry, now| machine::resolve_verdict(entry, fence, resolution, now)).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        let asked = self.send(self.scripts.get.call(&self.key(record))).await;
        let found = asked.and_then(Reply::into_entry).map_err(StoreError::nothing_written)?;
        let snapshot = found.map(|(entry, now)| Snapshot::of(&entry, now));
        Ok(snapshot.map(|found| Snapshot { lease_left: packed::left(found.lease_left), ..found }))
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

/// The script and the state machine say the same, or there is a record neither of them wrote.
fn disagreed() -> StoreError {
    StoreError::unknown(ErrorKind::Corrupt, "the record does not follow the state machine")
}
