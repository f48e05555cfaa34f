//! Records what a store was asked and told, call by call, and checks whether any order of events explains it.
//!
//! Calls of many tasks overlap, so it is not known in which order the store applied them. The check asks whether there is
//! *one* order that respects what ended before what, in which the pure state machine gives every record exactly the
//! answers that were seen: linearizability, record by record. Start reading at `model.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use self::model::{Call, Moment, Op, Told};
use super::violation::Violation;
use crate::core::claim::{Answer, Claim, Renewed, Resolution, Written};
use crate::core::fence::Fence;
use crate::core::identity::RecordId;
use crate::core::recording::{Recording, Tombstone};
use crate::error::{Effect, StoreError};
use crate::store::manager::{IdempotencyManager, Snapshot, SqlTables};
use crate::token::Holder;

mod model;
mod search;

/// Any store, with a memory of what it was asked and told.
///
/// Put it between your store and its user, at any level: raw calls, [`claim`](crate::lease::claim), `execute`, the
/// layer. Say with [`effect`](Self::effect) when the work takes effect. Afterwards [`check`](Self::check) fails if a
/// key had two effects, or if no order of events explains the answers.
///
/// ```
/// use std::sync::Arc;
/// use probity_idempotency::{testing::HistoryStore, *, store::{Answer, Claim, Fence, Holder, RecordId, Renewed, Resolution, Snapshot, SqlTables, Written}};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let history = Arc::new(HistoryStore::new(Arc::new(MemoryStore::new()))); // your store
/// let manager: Arc<dyn IdempotencyManager> = history.clone();
/// let print = Fingerprint::of(&HashKey::default(), &[b"pay"]);
/// for _retry in 0..3 {
///     let pay = async |lease: Lease| Ok::<_, StoreError>(history.effect(lease.record()));
///     let (scope, key) = (Scope::single_tenant(), IdempotencyKey::new("order-17")?);
///     let _ = execute(&manager, &scope, &key, print, &Policy::default(), pay).await?;
/// }
/// history.check()?;
/// # Ok(()) }
/// ```
///
/// Calls that were dropped, or failed with an unknown effect, may have been applied at any later time, or never; the
/// check allows for both. The check uses tokio's clock to decide if a lease or a retention was over, with some slack
/// for the clock of the store. On a paused clock it can therefore only check a store that uses that clock too, as
/// [`MemoryStore`] does. `claim_in` and its siblings speak to the database themselves: tell it of their transactions
/// with [`claimed_in`](Self::claimed_in), [`completed_in`](Self::completed_in) and [`released_in`](Self::released_in).
///
/// [`MemoryStore`]: crate::MemoryStore
#[derive(Debug)]
pub struct HistoryStore {
    inner: Arc<dyn IdempotencyManager>,
    started: Instant,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    order: u64,
    calls: Vec<(RecordId, Call)>,
    /// The records that had effects, and when.
    effects: Vec<(RecordId, u64)>,
}

impl HistoryStore {
    /// A store that has not been asked anything yet.
    #[must_use]
    pub fn new(inner: Arc<dyn IdempotencyManager>) -> Self {
        Self { inner, started: Instant::now(), log: Mutex::default() }
    }

    /// Notes that the work guarded by `record` has taken effect: a row is committed, a charge is sent.
    pub fn effect(&self, record: RecordId) {
        let mut log = self.log();
        log.order += 1;
        let order = log.order;
        log.effects.push((record, order));
    }

    /// Runs `transaction`, which claims with `claim_in` and commits, and notes what it says. An error is noted as if the
    /// commit may have happened, unless it proves otherwise.
    ///
    /// # Cancel safety
    /// The same as for the transaction; it is noted that it may have been committed.
    ///
    /// # Errors
    /// The errors of the transaction.
    pub async fn claimed_in(
        &self,
        claim: &Claim,
        transaction: impl Future<Output = Result<Answer, StoreError>> + Send,
    ) -> Result<Answer, StoreError> {
        self.seen(claim.record, Op::Claim(*claim), transaction, Told::Answer).await
    }

    /// Runs `transaction`, which records with `complete_in` and commits, and notes whether it did. It takes no effect
    /// by that: say [`effect`](Self::effect) when it has committed.
    ///
    /// # Cancel safety
    /// The same as for the transaction; it is noted that it may have been committed.
    ///
    /// # Errors
    /// The errors of the transaction.
    pub async fn completed_in(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
        transaction: impl Future<Output = Result<(), StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let op = Op::Complete(holder.token, recording.clone(), retention);
        self.seen(holder.record, op, transaction, |()| Told::Written(Written::Applied)).await
    }

    /// Runs `transaction`, which gives the key back with `release_in` and commits, and notes whether it did.
    ///
    /// # Cancel safety
    /// The same as for the transaction; it is noted that it may have been committed.
    ///
    /// # Errors
    /// The errors of the transaction.
    pub async fn released_in(
        &self,
        holder: &Holder,
        transaction: impl Future<Output = Result<(), StoreError>> + Send,
    ) -> Result<(), StoreError> {
        let op = Op::Release(holder.token);
        self.seen(holder.record, op, transaction, |()| Told::Written(Written::Applied)).await
    }

    /// Returns the number of calls that were seen.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.log().calls.len()
    }

    /// Checks everything seen so far. No call may be running.
    ///
    /// The time it takes grows with the number of overlapping writes on one record; a hundred callers racing for one
    /// key are no trouble.
    ///
    /// # Errors
    /// A record had more than one effect, or one that was granted to no call; or the answers about a record fit no order
    /// of its calls. The message shows the calls.
    pub fn check(&self) -> Result<(), Violation> {
        let log = self.log();
        let mut records: BTreeMap<RecordId, Vec<&Call>> = BTreeMap::new();
        for (record, call) in &log.calls {
            records.entry(*record).or_default().push(call);
        }
        let mut had: BTreeMap<RecordId, u64> = BTreeMap::new();
        for (record, order) in &log.effects {
            let calls = records.get(record).map_or(&[][..], Vec::as_slice);
            if !calls.iter().any(|call| call.granted_before(*order)) {
                return Err(Violation(format!("{record:?} had an effect that nobody was granted")));
            }
            if let Some(first) = had.insert(*record, *order) {
                let story = search::tell(calls, &(0..calls.len()).collect::<Vec<_>>());
                return Err(Violation(format!(
                    "{record:?} had two effects, at moments {first} and {order}:\n{story}"
                )));
            }
        }
        for (record, calls) in &records {
            search::explain(calls).map_err(|why| {
                Violation(format!("{record:?} was told what fits no order of events: {why}"))
            })?;
        }
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self, log: &mut Log) -> Moment {
        log.order += 1;
        Moment { order: log.order, at: crate::core::machine::micros(self.started.elapsed()) }
    }

    /// Notes the question, asks, notes the answer. A call that is dropped here stays without an answer.
    async fn seen<T: Clone>(
        &self,
        record: RecordId,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send,
        told: fn(T) -> Told,
    ) -> Result<T, StoreError> {
        let index = {
            let mut log = self.log();
            let asked = self.moment(&mut log);
            log.calls.push((record, Call::new(op, asked)));
            log.calls.len() - 1
        };
        let answer = call.await;
        let told = match &answer {
            Ok(answer) => told(answer.clone()),
            Err(error) if error.effect() == Effect::NotApplied => Told::Nothing,
            Err(_) => return answer,
        };
        let mut log = self.log();
        let at = self.moment(&mut log);
        if let Some((_, call)) = log.calls.get_mut(index) {
            call.answered(told, at);
        }
        answer
    }
}

#[async_trait]
impl IdempotencyManager for HistoryStore {
    async fn claim(&self, claim: &Claim) -> Result<Answer, StoreError> {
        self.seen(claim.record, Op::Claim(*claim), self.inner.claim(claim), Told::Answer).await
    }

    async fn renew(&self, holder: &Holder, lease: Duration) -> Result<Renewed, StoreError> {
        let op = Op::Renew(holder.token, lease);
        self.seen(holder.record, op, self.inner.renew(holder, lease), Told::Renewed).await
    }

    async fn mark_effect(&self, holder: &Holder) -> Result<Written, StoreError> {
        let op = Op::Mark(holder.token);
        self.seen(holder.record, op, self.inner.mark_effect(holder), Told::Written).await
    }

    async fn complete(
        &self,
        holder: &Holder,
        recording: &Recording,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let op = Op::Complete(holder.token, recording.clone(), retention);
        let call = self.inner.complete(holder, recording, retention);
        self.seen(holder.record, op, call, Told::Written).await
    }

    async fn tombstone(
        &self,
        holder: &Holder,
        tombstone: &Tombstone,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let op = Op::Tombstone(holder.token, tombstone.clone(), retention);
        let call = self.inner.tombstone(holder, tombstone, retention);
        self.seen(holder.record, op, call, Told::Written).await
    }

    async fn release(&self, holder: &Holder) -> Result<Written, StoreError> {
        let op = Op::Release(holder.token);
        self.seen(holder.record, op, self.inner.release(holder), Told::Written).await
    }

    async fn resolve(
        &self,
        record: RecordId,
        fence: Fence,
        resolution: &Resolution,
        retention: Duration,
    ) -> Result<Written, StoreError> {
        let op = Op::Resolve(fence, resolution.clone(), retention);
        let call = self.inner.resolve(record, fence, resolution, retention);
        self.seen(record, op, call, Told::Written).await
    }

    async fn get(&self, record: RecordId) -> Result<Option<Snapshot>, StoreError> {
        self.seen(record, Op::Get, self.inner.get(record), Told::Snapshot).await
    }

    /// Not part of any record's history: what may be purged may vanish at any time anyway.
    async fn purge(&self, limit: u32) -> Result<u64, StoreError> {
        self.inner.purge(limit).await
    }

    fn sql_tables(&self) -> Option<SqlTables> {
        self.inner.sql_tables()
    }
}
