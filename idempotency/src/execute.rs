//! Running a job or a message once, with a typed result.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::core::claim::{Answer, Claim, Indeterminate, Written};
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::RecordId;
use crate::core::key::{IdempotencyKey, Scope};
use crate::core::recording::{Recording, Tombstone, TombstoneReason};
use crate::error::{Effect, ErrorKind, StoreError};
use crate::lease::guard::{LeaseGuard, Settlement};
use crate::lease::handle::Lease;
use crate::lease::inquiry::{self, Claimed};
use crate::lease::renew::renewing;
use crate::policy::{Policy, STORE_TIMEOUT};
use crate::store::manager::IdempotencyManager;
use crate::store::timed::Timed;
use crate::token::OwnerToken;

/// The outcome of a call to [`execute`].
#[must_use = "only `Fresh` and `Replayed` carry a result"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution<T> {
    /// The work ran now.
    Fresh(T),
    /// It ran before; this is its result, as of now if the hook said [`Recovered::Pending`](crate::Recovered::Pending).
    Replayed(T),
    /// Another attempt is running it. Ask again after this long.
    InFlight {
        /// The rest of the running attempt's lease.
        retry_after: Duration,
    },
    /// The key was used for something else.
    Mismatch,
    /// It ran before, but its result was not kept.
    NotReplayable(Tombstone),
    /// It may have run before; it is not run again without proof.
    Indeterminate(Indeterminate),
}

/// The failure of a call to [`execute`].
///
/// Ask [`effect`](Self::effect) whether the work may have run.
#[derive(Debug, Error)]
pub enum ExecuteError<E> {
    /// The work failed. Its key is free again if nothing can have happened; otherwise the record is indeterminate.
    #[error("the work failed")]
    Work(#[source] E),
    /// The store failed before the work ran: it did not run.
    #[error("the store failed before the work ran")]
    NotRun(#[source] StoreError),
    /// The work ran, but its result could not be recorded. A result that cannot be serialized leaves a tombstone: the work
    /// is not run again. After a failure of the store the record is indeterminate, or another attempt has it.
    #[error("the work ran, but its result could not be recorded")]
    Unrecorded(#[source] StoreError),
    /// The work ran before, and its stored result is not one of this type: a field was added since, or the work recorded
    /// something that is not JSON. Do not run it again: it happened. Give `serde` a way to read old results.
    #[error("the work ran before, but its stored result cannot be read: {source}")]
    ResultUnreadable {
        /// The stored recording.
        recording: Recording,
        /// The reason why the recording is no result of this type.
        #[source]
        source: serde_json::Error,
    },
    /// The work ran, recorded one result in its transaction, and returned another. Retries get the recorded one, so the
    /// returned one is refused. Record what you return: `Lease::complete_result_in` gives it back.
    #[error("the work ran, and recorded another result than it returned; retries get the recorded one")]
    ResultDiffers {
        /// The stored recording, which is replayed from now on.
        recording: Recording,
    },
}

impl<E> ExecuteError<E> {
    /// Says whether the work of this key may have taken effect. Only [`NotRun`](Self::NotRun) says that the work of this
    /// call did not; the work of an earlier call may have.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::NotRun(_) => Effect::NotApplied,
            Self::Work(_)
            | Self::Unrecorded(_)
            | Self::ResultUnreadable { .. }
            | Self::ResultDiffers { .. } => Effect::Unknown,
        }
    }
}

/// Runs `work` unless `key` has run before in `scope`, and keeps its result for retries.
///
/// An error of the work is treated by the declared effects: if nothing can have happened the key is free again,
/// otherwise the record is indeterminate. Return results that are final (a declined card) as `Ok`.
///
/// ```
/// # use std::sync::Arc;
/// use probity_idempotency::*;
/// use probity_idempotency::lease::{LeaseGuard, Settlement};
/// use probity_idempotency::store::{Answer, Claim, Indeterminate, OwnerToken, RecordId, Written};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
/// let (scope, key) = (Scope::new("queue:payouts")?, IdempotencyKey::new("message-17")?);
/// let fingerprint = Fingerprint::of(&HashKey::default(), &[b"pay 100 to M-1"]);
/// for expected in [Execution::Fresh(100), Execution::Replayed(100)] {
///     let work = async |_lease: Lease| Ok::<i64, std::io::Error>(100);
///     assert_eq!(execute(&manager, &scope, &key, fingerprint, &Policy::default(), work).await?, expected);
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping it while the work runs settles the record by the declared effects, in the background. Spawn it if the
/// caller can be cancelled.
///
/// Work that blocks its thread is not renewed in that time, and loses its lease if that takes too long: use
/// [`spawn_blocking`](tokio::task::spawn_blocking).
///
/// # Errors
/// [`ExecuteError`] says whether the work ran.
pub async fn execute<T, E, F>(
    manager: &Arc<dyn IdempotencyManager>,
    scope: &Scope,
    key: &IdempotencyKey,
    fingerprint: Fingerprint,
    policy: &Policy,
    work: F,
) -> Result<Execution<T>, ExecuteError<E>>
where
    T: Serialize + DeserializeOwned,
    F: AsyncFnOnce(Lease) -> Result<T, E>,
{
    let claim = Claim {
        record: RecordId::derive(&policy.hash.unwrap_or_default(), scope, key),
        token: OwnerToken::generate().map_err(ExecuteError::NotRun)?,
        fingerprint,
        effects: policy.effects,
        terms: policy.terms,
    };
    let limit = policy.store_timeout.unwrap_or(STORE_TIMEOUT);
    let manager: Arc<dyn IdempotencyManager> = Arc::new(Timed { inner: Arc::clone(manager), limit });
    let span = debug_span!("idempotency", record = ?claim.record, attempt = Empty, status = Empty);
    let executing = async move {
        let execution = claim_and_run(&manager, &claim, policy, work).await;
        Span::current().record("status", status(&execution));
        execution
    };
    executing.instrument(span).await
}

async fn claim_and_run<T, E, F>(
    manager: &Arc<dyn IdempotencyManager>,
    claim: &Claim,
    policy: &Policy,
    work: F,
) -> Result<Execution<T>, ExecuteError<E>>
where
    T: Serialize + DeserializeOwned,
    F: AsyncFnOnce(Lease) -> Result<T, E>,
{
    let answer = inquiry::claim(manager, claim, policy, &Bytes::new()).await.map_err(ExecuteError::NotRun)?;
    let answer = match answer {
        Claimed::Answer(answer) => answer,
        Claimed::Pending(recording) => return decode(recording),
    };
    let guard = match answer {
        Answer::Acquired(guard) => guard,
        Answer::Replay(recording) => return decode(recording),
        Answer::InFlight { retry_after } => return Ok(Execution::InFlight { retry_after }),
        Answer::Mismatch => return Ok(Execution::Mismatch),
        Answer::NotReplayable(tombstone) => return Ok(Execution::NotReplayable(tombstone)),
        Answer::Indeterminate(lost) => return Ok(Execution::Indeterminate(lost)),
    };
    let lease = guard.lease();
    Span::current().record("attempt", lease.attempt());
    renewing(lease.clone(), async move { run(guard, work(lease)).await }).await
}

/// Runs the work, and settles.
async fn run<T, E>(
    mut guard: LeaseGuard,
    work: impl Future<Output = Result<T, E>>,
) -> Result<Execution<T>, ExecuteError<E>>
where
    T: Serialize + DeserializeOwned,
{
    let result = match work.await {
        Ok(result) => result,
        Err(error) => {
            // If this fails too, dropping the guard tries once more, and then the lease ends by itself.
            let _ = guard.release_or_expire().await;
            return Err(ExecuteError::Work(error));
        }
    };
    // Also after `complete_in`: only the store knows whether that transaction was committed, and if it was, this changes
    // nothing.
    let encoded = match serde_json::to_vec(&result) {
        Ok(encoded) => encoded,
        Err(source) => {
            let tombstone = Tombstone { reason: TombstoneReason::NotStored, status: 0, location: None };
            let rejected = StoreError::unknown(ErrorKind::Rejected, source);
            let _ = guard
                .settle_persistently(&Settlement::Tombstone(tombstone))
                .await
                .map_err(ExecuteError::Unrecorded)?;
            return Err(ExecuteError::Unrecorded(rejected));
        }
    };
    let encoded = Bytes::from(encoded);
    let settlement = Settlement::Record(Recording::payload(encoded.clone()));
    match guard.settle_persistently(&settlement).await {
        Ok(Written::AlreadyApplied) if guard.lease().0.has_recorded_in() => {
            match stored_otherwise::<T>(&guard.lease(), &encoded).await {
                Ok(None) => Ok(Execution::Fresh(result)),
                Ok(Some(recording)) => Err(ExecuteError::ResultDiffers { recording }),
                Err(error) => Err(ExecuteError::Unrecorded(error)),
            }
        }
        Ok(Written::Applied | Written::AlreadyApplied) => Ok(Execution::Fresh(result)),
        Ok(Written::LostTo(_) | Written::Refused(_) | Written::Missing) => {
            Err(ExecuteError::Unrecorded(StoreError::lease_lost()))
        }
        Err(error) => Err(ExecuteError::Unrecorded(error)),
    }
}

/// The recording that the work committed itself, if it is another result than `returned`.
async fn stored_otherwise<T>(lease: &Lease, returned: &Bytes) -> Result<Option<Recording>, StoreError>
where
    T: Serialize + DeserializeOwned,
{
    let held = &lease.0;
    let stored = held.manager.get(held.holder.record).await.map_err(StoreError::doubted)?;
    let Some(recording) = stored.and_then(|stored| stored.recording) else { return Ok(None) };
    // The same result can be written in more than one way.
    let rewritten =
        serde_json::from_slice::<T>(recording.bytes()).and_then(|stored| serde_json::to_vec(&stored));
    let is_equal = recording.bytes() == returned || rewritten.is_ok_and(|stored| stored == returned[..]);
    Ok(Some(recording).filter(|_| !is_equal))
}

/// Names the outcome for a span, in the words of `Idempotency-Status`.
const fn status<T, E>(execution: &Result<Execution<T>, ExecuteError<E>>) -> &'static str {
    match execution {
        Ok(Execution::Fresh(_)) => "created",
        Ok(Execution::Replayed(_)) => "replayed",
        Ok(Execution::InFlight { .. }) => "in-flight",
        Ok(Execution::Mismatch) => "mismatch",
        Ok(Execution::NotReplayable(_)) => "not-replayable",
        Ok(Execution::Indeterminate(_)) => "indeterminate",
        Err(ExecuteError::Work(_)) => "failed",
        Err(ExecuteError::NotRun(_)) => "refused",
        Err(ExecuteError::Unrecorded(_) | ExecuteError::ResultDiffers { .. }) => "unrecorded",
        Err(ExecuteError::ResultUnreadable { .. }) => "unreadable",
    }
}

fn decode<T: DeserializeOwned, E>(recording: Recording) -> Result<Execution<T>, ExecuteError<E>> {
    serde_json::from_slice(recording.bytes())
        .map(Execution::Replayed)
        .map_err(|source| ExecuteError::ResultUnreadable { recording, source })
}
