//! The handle that running work holds: proof that it may run, and the means to say what happened.
//!
//! [`Lease`] is the handle the work sees; it can be cloned and passed down. [`LeaseGuard`] is its one owner: it renews,
//! settles, and knows what dropping means.

use std::fmt;
#[cfg(any(feature = "tower", feature = "sqlite", feature = "postgres"))]
use std::sync::atomic::AtomicU16;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::core::claim::{Effects, Grant, Terms, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::deadline::deadline;
use crate::error::{Effect, StoreError};
use crate::metrics;
use crate::store::manager::IdempotencyManager;
use crate::token::Holder;

/// The number of times that a mark is sent before it counts as failed.
const MARK_TRIES: u32 = 3;
/// The pause between two tries of a mark.
const MARK_PAUSE: Duration = Duration::from_millis(100);

/// A handle on the claim that lets this work run.
///
/// ```
/// # use std::sync::Arc;
/// # use probity_idempotency::*;
/// # use probity_idempotency::store::{Fence, Grant, Holder, RecordId, Terms, Written};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let manager: Arc<dyn IdempotencyManager> = Arc::new(MemoryStore::new());
/// # let key = IdempotencyKey::new("k")?;
/// # let print = Fingerprint::of(&HashKey::default(), &[b"job"]);
/// # let policy = Policy::default().effects(Effects::Marked);
/// let charged = execute(&manager, &Scope::single_tenant(), &key, print, &policy, async |lease| {
///     let channel_key = lease.downstream_key("channel"); // the same for every attempt
///     lease.effect_starting().await?; // refuses if another attempt took over
///     Ok::<_, StoreError>(channel_key.len()) // call the channel here, with its key
/// })
/// .await?;
/// assert_eq!(charged, Execution::Fresh(40));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Lease(pub(crate) Arc<Held>);

/// The state that handle and guard share.
pub(crate) struct Held {
    pub(crate) manager: Arc<dyn IdempotencyManager>,
    pub(crate) holder: Holder,
    pub(crate) grant: Grant,
    pub(crate) effects: Effects,
    pub(crate) terms: Terms,
    /// The number of marks that are in the store, or may be. Each is counted before it is sent.
    marks: AtomicU32,
    /// The status of the recording that `complete_in` wrote, 0 for a job's; `NOT_RECORDED` if none.
    #[cfg(any(feature = "tower", feature = "sqlite", feature = "postgres"))]
    recorded: AtomicU16,
    /// Until when this process may believe in its lease; measured from before the claim was sent.
    believed_until: Mutex<Instant>,
    /// When the claim or the last renewal that was answered was sent: the next renewal counts from there.
    asked_at: Mutex<Instant>,
    /// Tells those who wait for the end of it that it has moved.
    moved: Notify,
    /// Set before the record is settled or given up: a renewal sent after that could revive what was ended.
    unrenewed: AtomicBool,
    /// Tells the renewal of that, in whichever task it is polled.
    stopped: Notify,
}

#[cfg(any(feature = "tower", feature = "sqlite", feature = "postgres"))]
const NOT_RECORDED: u16 = u16::MAX;

impl Held {
    pub(crate) fn new(
        manager: Arc<dyn IdempotencyManager>,
        claim: &crate::core::claim::Claim,
        grant: Grant,
        asked_at: Instant,
    ) -> Self {
        Self {
            manager,
            holder: claim.holder(),
            grant,
            effects: claim.effects,
            terms: claim.terms,
            marks: AtomicU32::new(0),
            #[cfg(any(feature = "tower", feature = "sqlite", feature = "postgres"))]
            recorded: AtomicU16::new(NOT_RECORDED),
            believed_until: Mutex::new(deadline(asked_at, grant.lease)),
            asked_at: Mutex::new(asked_at),
            moved: Notify::new(),
            unrenewed: AtomicBool::new(false),
            stopped: Notify::new(),
        }
    }

    /// No renewal is sent from now on; one that is on its way may still arrive.
    pub(crate) fn stop_renewing(&self) {
        self.unrenewed.store(true, Ordering::SeqCst);
        // At most one task renews, and it may not wait for this notification yet.
        self.stopped.notify_one();
    }

    pub(crate) fn is_renewed_no_longer(&self) -> bool {
        self.unrenewed.load(Ordering::SeqCst)
    }

    /// Returns when [`stop_renewing`](Self::stop_renewing) was called, before or after this.
    pub(crate) async fn no_longer_renewed(&self) {
        while !self.is_renewed_no_longer() {
            self.stopped.notified().await;
        }
    }

    /// Says whether the work may have touched the world in a way its own transaction does not cover.
    pub(crate) fn may_have_had_effect(&self) -> bool {
        self.effects == Effects::Opaque || self.is_marked()
    }

    /// Says whether an external effect was announced.
    pub(crate) fn is_marked(&self) -> bool {
        self.marks.load(Ordering::SeqCst) > 0
    }

    /// Says whether `complete_in` was used. Only the store knows whether its transaction was committed.
    pub(crate) fn has_recorded_in(&self) -> bool {
        #[cfg(any(feature = "tower", feature = "sqlite", feature = "postgres"))]
        let recorded = self.recorded.load(Ordering::SeqCst) != NOT_RECORDED;
        #[cfg(not(any(feature = "tower", feature = "sqlite", feature = "postgres")))]
        let recorded = false;
        recorded
    }

    /// The status `complete_in` recorded, if it was used.
    #[cfg(feature = "tower")]
    pub(crate) fn recorded_in(&self) -> Option<u16> {
        Some(self.recorded.load(Ordering::SeqCst)).filter(|status| *status != NOT_RECORDED)
    }

    pub(crate) fn believe_until(&self, until: Instant) {
        *self.belief() = until;
        self.moved.notify_waiters();
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.belief() <= Instant::now()
    }

    /// When the lease should be renewed: a third of it after it was last asked for, however late that is noticed.
    pub(crate) fn renew_at(&self) -> Instant {
        let asked_at = *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        deadline(asked_at, self.terms.lease / 3)
    }

    pub(crate) fn asked_at(&self, instant: Instant) {
        *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = instant;
    }

    fn belief(&self) -> MutexGuard<'_, Instant> {
        // A panic of another thread cannot leave half an instant behind.
        self.believed_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The record, as 64 hexadecimal digits: stable across attempts, safe to log, useless as a key.
    #[must_use]
    pub fn record_id(&self) -> String {
        self.0.holder.record.to_hex()
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> RecordId {
        self.0.holder.record
    }

    /// Higher than the fence of every earlier attempt.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.0.grant.fence
    }

    /// 1 for the first execution, more after a takeover or a release.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.grant.attempt
    }

    /// The idempotency key to send downstream for `step`; the same for every attempt, so the other side can tell a
    /// retry from a second order.
    #[must_use]
    pub fn downstream_key(&self, step: &str) -> String {
        self.0.holder.record.downstream_key(step)
    }

    /// Call it just before an external effect. When it returns `Ok`, this attempt still holds the record and no other
    /// will ever run without proof that the effect did not happen (I-5). When it returns an error, do not start.
    ///
    /// Behind the layer, answer that error with `Verdict::Retryable` if its [`effect`](StoreError::effect) is `NotApplied`,
    /// and with `Verdict::Unknown` otherwise. An answer of 4xx without a verdict is recorded, and each retry gets it.
    ///
    /// # Cancel safety
    /// The mark may have been set; the record then counts as marked.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) if another attempt took over, or the lease ended while the
    /// store was asked; other kinds if the store cannot say.
    pub async fn effect_starting(&self) -> Result<(), StoreError> {
        if self.0.is_lost() {
            return Err(StoreError::lease_lost());
        }
        self.0.marks.fetch_add(1, Ordering::SeqCst);
        let (mut tries, mut doubted) = (1, false);
        loop {
            match metrics::time_call("mark_effect", self.0.manager.mark_effect(&self.0.holder)).await {
                // The answer is late: the mark is in the store, and the lease has ended since the call was sent.
                Ok(Written::Applied | Written::AlreadyApplied) if self.0.is_lost() => {
                    return Err(StoreError::lease_lost().doubted());
                }
                Ok(Written::Applied | Written::AlreadyApplied) => return Ok(()),
                Ok(Written::LostTo(_) | Written::Refused(_) | Written::Missing) => {
                    return Err(StoreError::lease_lost().after_doubt(doubted));
                }
                Err(error) if tries == MARK_TRIES => {
                    let error = error.after_doubt(doubted);
                    if error.effect() == Effect::NotApplied {
                        self.0.marks.fetch_sub(1, Ordering::SeqCst);
                    }
                    return Err(error);
                }
                Err(error) => {
                    doubted |= error.effect() == Effect::Unknown;
                    tries += 1;
                    tokio::time::sleep(MARK_PAUSE).await;
                }
            }
        }
    }

    /// Records the answer in the caller's transaction: it commits with the business write, or neither does. If another
    /// attempt took over, this is an error, and `?` rolls the business write back (I-4).
    ///
    /// `on` is anything that executes SQL in the database that holds the records: `&mut *tx` of a `sqlx` transaction,
    /// or a wrapper around one. It is one statement.
    ///
    /// Behind the layer, answer with the recording itself when the commit succeeded, and with another status when it
    /// did not: an answer with the recorded status is taken as the word that it is committed.
    ///
    /// # Cancel safety
    /// The record is written only if the transaction commits.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) if the record is not held by this attempt in this
    /// database; other kinds if the database failed. Roll back in either case.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn complete_in<'e, 'c: 'e, E>(
        &self,
        on: E,
        recording: &crate::core::recording::Recording,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<'e, 'c, E>
    where
        E: sqlx::Executor<'c> + 'e,
        E::Database: crate::store::sql::Dialect,
    {
        let held = Arc::clone(&self.0);
        let running = crate::store::sql::complete_in(
            on,
            held.manager.sql_tables(),
            &held.holder,
            recording,
            held.terms.retention,
        );
        let (status, size) = (recording.status().min(NOT_RECORDED - 1), recording.size());
        async move {
            let written = metrics::time_call("complete", running).await;
            metrics::count_completion_in(size, held.is_lost(), &written);
            written?;
            held.recorded.store(status, Ordering::SeqCst);
            Ok(())
        }
    }

    /// Records `result` in the caller's transaction, as [`execute`](crate::execute) would, and gives it back to be
    /// returned: what is recorded and what is returned are the same then. See [`complete_in`](Self::complete_in).
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example(lease: probity_idempotency::Lease, pool: sqlx::SqlitePool) -> Result<String, Box<dyn std::error::Error>> {
    /// let mut tx = pool.begin().await?;
    /// let paid = lease.complete_result_in(&mut *tx, "paid".to_owned()).await?;
    /// tx.commit().await?;
    /// Ok(paid)
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// The record is written only if the transaction commits.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`](crate::ErrorKind::Rejected) if the result cannot be written as JSON; those of
    /// [`complete_in`](Self::complete_in). Roll back in any case.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub async fn complete_result_in<'e, 'c: 'e, E, T>(&self, on: E, result: T) -> Result<T, StoreError>
    where
        E: sqlx::Executor<'c> + 'e,
        E::Database: crate::store::sql::Dialect,
        T: serde::Serialize,
    {
        let encoded = serde_json::to_vec(&result)
            .map_err(|source| StoreError::not_applied(crate::error::ErrorKind::Rejected, source))?;
        self.complete_in(on, &crate::core::recording::Recording::payload(encoded)).await?;
        Ok(result)
    }

    /// Says whether this attempt must assume that another may run: a renewal was refused, or none succeeded in time.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// Returns when the lease is lost; never, if the work settles first.
    ///
    /// # Cancel safety
    /// Only waits.
    pub async fn lost(&self) {
        loop {
            // Subscribe before reading the believed end, so that a change in between is not missed.
            let moved = self.0.moved.notified();
            let until = *self.0.belief();
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    if self.0.is_lost() { return }
                }
                () = moved => {}
            }
        }
    }

    /// The length of the lease that was asked for when the record was claimed.
    #[must_use]
    pub fn lease_length(&self) -> Duration {
        self.0.terms.lease
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("record", &self.0.holder.record)
            .field("fence", &self.0.grant.fence.0)
            .field("attempt", &self.0.grant.attempt)
            .finish()
    }
}
